// Package eventloop serves many sockets with one goroutine: it waits until one of them is
// ready, a timer is due or a task was posted, and calls who asked for it.
//
// A goroutine per socket costs a wake-up through the scheduler for each event of a stream,
// and a stack for each stream. Here a wake-up takes whatever is ready, and an idle stream
// is a few hundred bytes.
//
// # How it waits
//
// The loop has an epoll instance of its own, which lies in the runtime's poller as an
// os.File: the goroutine is parked like any other that waits for a file, so that no thread
// and no P is kept and nothing is polled. Sockets stay registered with the runtime, too; their
// net.Conn remains what owns the descriptor, and every use goes through its RawConn, so
// that none can meet a descriptor that was closed and given to somebody else.
//
// Events are edge-triggered. An event may come although nothing is ready; none is
// missing. Whoever is told that a socket is readable reads until it has nothing more, or
// remembers that it has.
//
// # Concurrency
//
// Post and Close may be called from any goroutine. Everything else belongs to the loop's
// own: tasks, handlers and timers are called there, one after the other, and must not block.
//
// Only Linux has it: New fails elsewhere.
package eventloop

// Event is what a socket is ready for; several may come at once.
type Event uint8

// Events.
const (
	Readable Event = 1 << iota // there are bytes, or their end
	Writable                   // there is room again
	Hangup                     // the peer closed its side, or the connection is broken
)

// Handler is told of the events of a socket.
type Handler interface{ Ready(Event) }

// Task is something to do in the loop's goroutine.
type Task interface{ Run() }
