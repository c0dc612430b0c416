package proxy

// LoopStreams returns how many streams were given to event loops.
func (s *Server) LoopStreams() uint32 {
	if s.loops == nil {
		return 0
	}
	return s.loops.next.Load()
}

// Pending returns how many bytes event loops hold for each client that has not taken them.
func (s *Server) Pending() (held []int) {
	s.calls.mu.Lock()
	var looped []*loopStream
	for c := range s.calls.calls {
		if c.loop != nil {
			looped = append(looped, c.loop)
		}
	}
	s.calls.mu.Unlock()
	for _, t := range looped {
		said := make(chan int, 1)
		if t.d.Post(asked(func() { said <- len(t.pend) })) {
			held = append(held, <-said)
		}
	}
	return held
}

// asked is a question that the loop's goroutine answers.
type asked func()

// Run answers it.
func (a asked) Run() { a() }
