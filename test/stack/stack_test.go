package stack_test

import (
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestStackStartsAndServesOpenclawctl(t *testing.T) {
	s := stack.New(t, stack.Options{})
	if tok := s.Customer("Ada", "starter"); tok.Raw == "" || tok.Customer == "" || tok.ID == "" {
		t.Errorf("incomplete token: id %q, customer %q", tok.ID, tok.Customer)
	}
}
