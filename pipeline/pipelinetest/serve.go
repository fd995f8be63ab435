package pipelinetest

import (
	"net"
	"sync"
	"testing"
)

// Serve takes connections at an address of this machine, host:port, and passes each
// to answer in a goroutine of its own. Those that answer leaves open are closed when
// the test ends.
func Serve(t *testing.T, answer func(conn net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var taken []net.Conn
	var group sync.WaitGroup
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			taken = append(taken, conn)
			group.Go(func() { answer(conn) })
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		for _, conn := range taken {
			_ = conn.Close() // answer may have
		}
		group.Wait()
	})
	return l.Addr().String()
}
