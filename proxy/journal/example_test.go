package journal_test

import (
	"fmt"
	"os"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/proxy/journal"
)

func Example() {
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	j, err := journal.Open(dir, journal.Options{Slots: 16, LogBytes: 1 << 20})
	if err != nil {
		panic(err)
	}
	defer j.Close()

	slot, err := j.Begin(&journal.Intent{
		AdmittedAt: time.Now(), PeriodID: "2026-07", RequestID: "req-1",
		CustomerID: "cust-1", BoxID: "box-1", TokenID: "tok-1", Face: contract.FaceOpenAI,
		Reserved: 900, Weights: contract.Weights{Prompt: 1, Cached: 1, Completion: 1}, PromptBound: 400, OutputBound: 500,
	})
	if err != nil {
		panic(err)
	}
	slot.Sent()
	slot.Advance(0, 0, 1, 0, true)
	slot.Complete(&contract.Event{
		Prompt: 120, Completion: 30, Settled: 150, Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK, Status: 200,
	})

	events, err := j.Next(j.Forgotten(), 100)
	if err != nil {
		panic(err)
	}
	for _, e := range events {
		fmt.Println(e.Seq, e.RequestID, e.CustomerID, e.Settled)
	}
	if err := j.Forget(events[len(events)-1].Seq); err != nil {
		panic(err)
	}
	fmt.Println("waiting:", j.Stats().Waiting)
	// Output:
	// 1 req-1 cust-1 150
	// waiting: 0
}
