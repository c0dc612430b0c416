//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// known are the names that stand for the Services of the test. Each says its address, so nobody has to
// tell the server.
func known() map[string][4]byte {
	return map[string][4]byte{
		"token-proxy.platform.svc.cluster.local.": {10, 96, 0, 20},
		"postgres.platform.svc.cluster.local.":    {10, 96, 0, 21},
		"redis.platform.svc.cluster.local.":       {10, 96, 0, 22},
	}
}

// answer is what the server says to a question.
func answer(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	if len(m.Questions) != 1 {
		return nil, fmt.Errorf("%d questions", len(m.Questions))
	}
	q := m.Questions[0]
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true}
	m.Answers, m.Authorities, m.Additionals = nil, nil, nil
	address, ok := known()[strings.ToLower(q.Name.String())]
	switch {
	case !ok:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: address},
		}}
	}
	return m.Pack()
}

func answerUDP(address string) error {
	config := net.ListenConfig{Control: freeBind}
	c, err := config.ListenPacket(context.Background(), "udp", address)
	if err != nil {
		return err
	}
	buffer := make([]byte, 4096)
	for {
		n, from, err := c.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if said, err := answer(buffer[:n]); err == nil {
			_, _ = c.WriteTo(said, from) // who gets none asks again
		}
	}
}

func answerTCP(address string) error {
	l, err := listen(address)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			var length [2]byte
			if _, err := io.ReadFull(c, length[:]); err != nil {
				return
			}
			question := make([]byte, binary.BigEndian.Uint16(length[:]))
			if _, err := io.ReadFull(c, question); err != nil {
				return
			}
			if said, err := answer(question); err == nil {
				binary.BigEndian.PutUint16(length[:], uint16(len(said)))
				_, _ = c.Write(append(length[:], said...))
			}
		}()
	}
}
