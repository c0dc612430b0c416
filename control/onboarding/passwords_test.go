package onboarding

import (
	"fmt"
	"strings"
	"testing"
)

// What somebody says that a password is, is cut out, however it is said.
func TestPasswords(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"my password is hunter2", "My password is hunter2.", "my password is: hunter2", "my password: hunter2", "password=hunter2", "password = hunter2", "password -> hunter2",
		"password->hunter2", "password => hunter2", "password → hunter2", "password - hunter2", "password hunter2", "the password for my mail account is hunter2", "my Password was hunter2",
		"my password's hunter2", "my password is still hunter2", "my password is not secret, it is hunter2", "my password is now just hunter2", "I set my password to hunter2", "change the password to hunter2, please",
		"the password to my mail is hunter2", "use hunter2 as my password", "hunter2 is my password", "hunter2 is the password", `my password is "hunter2"`, "my password is 'hunter2'", "my password is “hunter2”",
		"my password is `hunter2`", "my password is 'hunter2", "**password**: hunter2", `"password": "hunter2"`, "PASSWORD:HUNTER2", "(password: hunter2)", "my mail_password is hunter2", "passwords are hunter2 and x",
		"This is my password: hunter2", "You need my password? It is hunter2", "Is this my password? hunter2", "my password,\nwhich I use everywhere,\nis hunter2", "password\nhunter2", "my passphrase is hunter2",
		"my password is my password is hunter2", "password is password is hunter2", "the secret is hunter2", "login ada, password hunter2", "Passwort, I mean the password, is hunter2",
		"minha senha é hunter2", "minha senha e\u0301 hunter2", "minha senha e hunter2", "minha senha eh hunter2", "minha senha e' hunter2", "Minha senha é: hunter2", "senha: hunter2", "senha = hunter2", "senha -> hunter2",
		"a senha do meu e-mail é hunter2", "a senha do wifi ainda é hunter2", "a minha senha é só hunter2", "senha hunter2", "hunter2 é a minha senha", "hunter2 é minha senha", "use hunter2 como senha",
		"troquei a senha para hunter2", `minha senha é "hunter2"`, "minha senha é «hunter2»", "A minha senha é a seguinte: hunter2", "as senhas são hunter2", "a senha será hunter2", "o segredo é hunter2",
		"minha senha? é hunter2", "senha e usuário: hunter2", "minha senha não é hunter2", "MINHA SENHA É HUNTER2", "a senha era hunter2 e agora mudou", "mi contraseña es: hunter2", "1234567: my password is hunter2",
	} {
		got, _, _ := cut(text)
		if strings.Contains(strings.ToLower(got), "hunter") || !strings.Contains(got, markSecret) {
			t.Errorf("%q: left is %q", text, got)
		}
		if again, _, _ := cut(got); again != got {
			t.Errorf("%q: cut again, %q becomes %q", text, got, again)
		}
	}
	for text, want := range map[string]string{
		`my password is "correct horse battery", thanks`:   `my password is [removed], thanks`,
		"minha senha é 'abre te sésamo'!":                  "minha senha é [removed]!",
		`the password "hunter two" is mine`:                `the password [removed] is [removed]`,
		"password: hunter2, senha=abc":                     "password: [removed] senha=[removed]",
		"password: 12:30, at noon":                         "password: [removed] at noon",
		"my password is abacaxi and my mail is " + address: "my password is [removed] and my mail is " + address,
	} {
		if got, _, _ := cut(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	// A sentence that only speaks of one keeps all of its words, or all but one.
	for text, words := range map[string]int{
		"password reset is broken": 1, "Your password reset is broken, and I am sad about it.": 1, "I forgot my password": 0, "Can I change my password later?": 0, "what is the database password": 0,
		"What is my password?": 0, "do you keep passwords?": 0, "I lost my password. Please help me.": 0, "how do I choose a password for my account": 0, "the secret of success is patience and work": 1,
		"esqueci a minha senha": 0, "qual é a minha senha?": 0, "qual é a senha do banco de dados": 0, "posso trocar a senha depois?": 0, "a recuperação de senha está quebrada": 0, "minha senha e meu login sumiram": 0,
		"este é o segredo": 0, "this is a secret": 0, "my secretary is nice": 0, "a resenha é boa": 0, "o desenho é lindo": 0, "it is for me and a team of 4, thanks": 0, "a senha é fraca, preciso de ajuda": 1,
		"I need help with my password manager at 12:30, see https://example.com": 0, "I want to change my password to something better": 1,
	} {
		got, _, _ := cut(text)
		if lost := len(strings.Fields(text)) - len(strings.Fields(strings.ReplaceAll(got, markSecret, ""))); lost != words {
			t.Errorf("%q becomes %q, without %d words, want %d", text, got, lost, words)
		}
		if secret := words > 0 && !strings.Contains(text, "reset"); HasSecret(text) != secret {
			t.Errorf("%q has a secret: %v", text, !secret)
		}
	}
}

// An address or a number is no password only since the sentence has named one.
func TestSaidBesideAPassword(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"Please mail the password link to " + address, "pode mandar a senha para " + address, "I forgot my password, my mail is " + address, "I forgot my password, my number is 123456789",
		"Esqueci a senha, meu e-mail é " + address + ".", "esqueci a senha, meu número é 123456789", "I lost my password, my Telegram id is: 123456789", "send the password to (" + address + "), please",
		"I forgot my password. My mail is " + address, "forgot the password, my address: " + address,
	} {
		if got, _, _ := cut(text); got != text || HasSecret(text) {
			t.Errorf("%q becomes %q, and has a secret: %v", text, got, HasSecret(text))
		}
	}
	for _, text := range []string{
		"my password is " + address, "password: " + address, "my password is 123456789", "the password number is 123456789", "the password of my laptop is " + address, "the password for my phone is 123456789",
		"my password for the mail is P@ss.w0rd", "I forgot my mail, it is " + address + ", my password is 123456789", `password reset is broken, my password is abacaxi`, "my password reset word is Abacaxi",
		"minha senha e " + address, "use as password as " + address, "a senha do meu número é 48213", "the password for my account number is 44171", "the password of my apple id is 123456", "my password for my account is " + address,
		"my password number is 4821", "password change: abacaxi", "my password recovery word is abacaxi",
	} {
		if got, _, _ := cut(text); got == text || !HasSecret(text) {
			t.Errorf("%q becomes %q, and has a secret: %v", text, got, HasSecret(text))
		}
	}
}

// Whatever stands around it, of a password that is said to be one nothing is left.
func FuzzPasswords(f *testing.F) {
	for i, s := range []string{
		"", "hello ", "password ", "my password is", "senha:", "password \"", "'", "is ", "12345678: ", "1234567:x", "sk-", "[bot token", "é", "\xff", "it is. ", "password is my", "->", "secret = ", "a\n", "- ",
		"password is my password is", "senha e", "senha para", "x is my", ":", "password password", "“", "is is is",
	} {
		f.Add(s, s, uint8(i))
		f.Add(s, "", uint8(i+7))
		f.Add("", s, uint8(i+14))
	}
	f.Add("", "pASSWD", uint8(11))
	phrases := []string{
		"my password is %s", "password: %s", "password=%s", "password -> %s", `my password is "%s"`, "the password for it is '%s'", "password %s", "my password's %s",
		"minha senha é %s", "senha: %s", "a senha do meu mail é %s", "minha senha e %s", "senha = \"%s\"", "my password is: %s", "minha senha é: '%s'",
	}
	f.Fuzz(func(t *testing.T, before, after string, n uint8) {
		const value = "Qz9xW"
		before, after = strings.ReplaceAll(before, "Qz9", ""), strings.ReplaceAll(after, "Qz9", "")
		after = strings.ReplaceAll(after, "@", "") // with one it may be an address
		text := before + " " + fmt.Sprintf(phrases[int(n)%len(phrases)], value) + after
		if got, _, _ := cut(text); strings.Contains(got, "Qz9") {
			t.Errorf("of %q there is %q left", text, got)
		}
	})
}
