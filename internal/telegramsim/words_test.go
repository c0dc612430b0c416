package telegramsim

import (
	"errors"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// Both languages say everything, and pages say nothing else.
func TestWords(t *testing.T) {
	t.Parallel()
	en, pt := english(), portuguese()
	for key, text := range en {
		if text == "" || pt[key] == "" {
			t.Errorf("%s: %q and %q", key, text, pt[key])
		}
	}
	wrong := []error{ErrTaken, ErrName, errPersonID, errPersonName, errPersonUser, errPersonSpeaks}
	for _, err := range wrong {
		if said := pt.sorry(err); said == pt.sorry(errors.New("")) || strings.Contains(said, err.Error()) || !strings.Contains(en.sorry(err), err.Error()) {
			t.Errorf("%v: %s", err, said)
		}
	}
	if len(pt) != len(en)+len(wrong) {
		t.Errorf("%d and %d words", len(en), len(pt))
	}
	word := regexp.MustCompile(`\.T\.([a-z_]+)`)
	// What is between tags, but for what the template fills in and for the name of Telegram's own bot.
	said := regexp.MustCompile(`>[^<]*[A-Za-z][^<]*<`)
	filled := regexp.MustCompile(`{{[^}]*}}`)
	for _, name := range []string{"frame", "father", "chat"} {
		text, err := pageFiles.ReadFile("pages/" + name + ".html")
		if err != nil {
			t.Fatal(err)
		}
		used := word.FindAllStringSubmatch(string(text), -1)
		for _, w := range used {
			if en[w[1]] == "" {
				t.Errorf("%s: no word %s", name, w[1])
			}
		}
		if len(used) == 0 {
			t.Errorf("%s: no words", name)
		}
		for _, own := range said.FindAllString(filled.ReplaceAllString(string(text), ""), -1) {
			if own != ">BotFather<" {
				t.Errorf("%s says in one language only: %s", name, own)
			}
		}
	}
}

func TestLanguageOfPages(t *testing.T) {
	t.Parallel()
	s, err := Open(Options{URL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, err := s.Register("shop_bot"); err != nil {
		t.Fatal(err)
	}
	for accepted, want := range map[string][]string{
		"pt-BR,pt;q=0.9,en;q=0.5": {`lang="pt-BR"`, "Simulação", "Criar o bot", "Ainda não há", "Iniciar", "Enviar", `data-edited="editada"`, "Ser essa pessoa", "já está em uso", "O link está errado", "um número a partir de 1"},
		"en-US,pt;q=0.5":          {`lang="en"`, "Simulated", "Make the bot", "Start", "Send", `data-edited="edited"`, "Be that person", "already taken", "The link is wrong", "a number from 1 on"},
		"":                        {`lang="en"`, "All bots"},
	} {
		var said strings.Builder
		for _, path := range []string{"/", "/none_bot", "/shop_bot", "/shop_bot?start=%22", "/shop_bot?user=0"} {
			said.WriteString(shown(s, "GET", path, accepted, ""))
		}
		said.WriteString(shown(s, "POST", "/", accepted, "username=shop_bot"))
		empty, err := Open(Options{URL: "http://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		said.WriteString(shown(empty, "GET", "/", accepted, ""))
		empty.Close()
		for _, w := range want {
			if !strings.Contains(said.String(), w) {
				t.Errorf("%q: no page says %q", accepted, w)
			}
		}
		if other := map[bool]string{true: "Simulated", false: "Simulação"}[strings.HasPrefix(accepted, "pt")]; strings.Contains(said.String(), other) {
			t.Errorf("%q: a page says %q", accepted, other)
		}
	}
}

func shown(s *Server, method, target, accepted, form string) string {
	r := httptest.NewRequest(method, target, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept-Language", accepted)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w.Body.String()
}
