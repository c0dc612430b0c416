package proxy

// LoopStreams returns how many streams were given to event loops.
func (s *Server) LoopStreams() uint32 {
	if s.loops == nil {
		return 0
	}
	return s.loops.next.Load()
}
