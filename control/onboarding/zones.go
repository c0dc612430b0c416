package onboarding

import (
	"regexp"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
)

// zoneOf finds the time zone of a place that is named, or the zone itself; "" if there is none.
func zoneOf(text string) string {
	for _, name := range zoneShape.FindAllString(text, -1) {
		if openclaw.ValidTimeZone(name) {
			return name
		}
	}
	folded := fold(text)
	if strings.EqualFold(strings.TrimSpace(text), "utc") {
		return "UTC"
	}
	for _, p := range places {
		if hasAny(folded, p.names...) {
			return p.zone
		}
	}
	return ""
}

var zoneShape = regexp.MustCompile(`[A-Z][A-Za-z]+(?:/[A-Z][A-Za-z_-]+){1,2}`)

// zoneFor is the time zone that is taken for somebody of whom only the language is known.
func zoneFor(l control.Language) string {
	if l == control.Portuguese {
		return "America/Sao_Paulo"
	}
	return "UTC"
}

// places are some that customers name: what is not here is asked of the model, or is written as the zone.
var places = []struct {
	zone  string
	names []string
}{
	{"America/Sao_Paulo", []string{"sao paulo", "rio de janeiro", "rio", "brasilia", "belo horizonte", "curitiba", "porto alegre", "florianopolis", "campinas", "goiania", "vitoria", "santos"}},
	{"America/Bahia", []string{"salvador", "bahia"}},
	{"America/Recife", []string{"recife", "pernambuco"}},
	{"America/Fortaleza", []string{"fortaleza", "ceara", "natal", "joao pessoa"}},
	{"America/Maceio", []string{"maceio", "aracaju"}},
	{"America/Belem", []string{"belem"}},
	{"America/Manaus", []string{"manaus", "amazonas"}},
	{"America/Cuiaba", []string{"cuiaba"}},
	{"America/Campo_Grande", []string{"campo grande"}},
	{"America/Porto_Velho", []string{"porto velho"}},
	{"America/Rio_Branco", []string{"rio branco"}},
	{"Europe/Lisbon", []string{"lisbon", "lisboa", "porto", "portugal"}},
	{"Europe/London", []string{"london", "londres", "england", "uk", "inglaterra"}},
	{"Europe/Dublin", []string{"dublin", "ireland", "irlanda"}},
	{"Europe/Berlin", []string{"berlin", "germany", "berlim", "alemanha", "munich", "munique", "hamburg"}},
	{"Europe/Paris", []string{"paris", "france", "franca"}},
	{"Europe/Madrid", []string{"madrid", "barcelona", "spain", "espanha"}},
	{"Europe/Rome", []string{"rome", "roma", "milan", "milao", "italy", "italia"}},
	{"Europe/Amsterdam", []string{"amsterdam", "netherlands", "holanda"}},
	{"Europe/Zurich", []string{"zurich", "zurique", "switzerland", "suica"}},
	{"Europe/Vienna", []string{"vienna", "viena", "austria"}},
	{"America/New_York", []string{"new york", "nova york", "nova iorque", "boston", "miami", "washington", "atlanta", "eastern time"}},
	{"America/Chicago", []string{"chicago", "dallas", "houston", "austin", "central time"}},
	{"America/Denver", []string{"denver", "mountain time"}},
	{"America/Los_Angeles", []string{"los angeles", "san francisco", "seattle", "california", "san diego", "pacific time"}},
	{"America/Toronto", []string{"toronto", "montreal", "ottawa"}},
	{"America/Argentina/Buenos_Aires", []string{"buenos aires", "argentina"}},
	{"America/Santiago", []string{"santiago", "chile"}},
	{"America/Bogota", []string{"bogota", "colombia"}},
	{"America/Mexico_City", []string{"mexico city", "cidade do mexico", "mexico"}},
	{"Africa/Luanda", []string{"luanda", "angola"}},
	{"Africa/Maputo", []string{"maputo", "mozambique", "mocambique"}},
	{"Asia/Tokyo", []string{"tokyo", "toquio", "japan", "japao"}},
	{"Asia/Singapore", []string{"singapore", "singapura"}},
	{"Asia/Dubai", []string{"dubai"}},
	{"Asia/Kolkata", []string{"india", "mumbai", "delhi", "bangalore"}},
	{"Australia/Sydney", []string{"sydney", "melbourne", "canberra"}},
}
