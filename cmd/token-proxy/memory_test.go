package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
	"time"
)

func cycles() uint64 {
	s := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// Not parallel: they count the collections of the process.
func TestTidyCollectsWhatABurstLeft(t *testing.T) {
	for name, burst := range map[string]func() (at uint64){
		"garbage": func() uint64 {
			at := cycles()
			for range 64 {
				keep = make([]byte, 1<<20)
			}
			keep = nil
			return at
		},
		"goroutines": func() uint64 {
			var grown, end sync.WaitGroup
			grown.Add(500)
			end.Add(1)
			for range 500 {
				go func() {
					deep(200)
					grown.Done()
					end.Wait()
				}()
			}
			grown.Wait()
			runtime.GC()
			time.Sleep(2 * time.Second) // it has seen them
			at := cycles()
			end.Done()
			return at
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the runtime's own are not meant
			runtime.GC()
			go tidy(ctx, 20*time.Millisecond)
			time.Sleep(100 * time.Millisecond) // it has looked
			at := burst()
			for deadline := time.Now().Add(20 * time.Second); cycles() == at; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("nothing was collected")
				}
			}
			// And then there is nothing to do.
			for range 20 {
				at = cycles()
				time.Sleep(500 * time.Millisecond)
				if cycles() == at {
					return
				}
			}
			t.Error("it collects on and on while nothing happens")
		})
	}
}

var keep []byte

// deep makes its stack large.
//
//go:noinline
func deep(n int) byte {
	var room [128]byte
	if n == 0 {
		return room[0]
	}
	room[n%128] = deep(n - 1)
	return room[1]
}
