package relay

// Buffered returns how many bytes of an incomplete event are held.
func (s *Stream) Buffered() int { return len(s.pending) }
