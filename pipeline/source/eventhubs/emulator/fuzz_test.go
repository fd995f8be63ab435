package emulator

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// FuzzConn: no bytes of a peer that has logged in make the emulator panic or hang.
func FuzzConn(f *testing.F) {
	source := &wire.Terminus{Descriptor: uint64(wire.CodeSource), Fields: wire.List{"logs/ConsumerGroups/$Default/Partitions/0"}}
	reply := wire.NewTarget("reply")
	request := wire.AppendSection(nil, wire.SectionProperties, wire.List{"id", nil, nil, nil, "reply"})
	request = wire.AppendSection(request, wire.SectionAppProperties, wire.Map{{Key: "operation", Value: "READ"}, {Key: "name", Value: "logs"}, {Key: "type", Value: "com.microsoft:eventhub"}})
	frames := []wire.Performative{
		&wire.Begin{IncomingWindow: 10, OutgoingWindow: 10},
		&wire.Attach{Name: "in", Handle: 0, Target: wire.NewTarget("logs"), InitialDeliveryCount: new(uint32)},
		&wire.Attach{Name: "out", Handle: 1, Receiver: true, SndSettle: 2, Source: source, Properties: wire.Map{{Key: wire.Symbol("com.microsoft:epoch"), Value: int64(1)}}},
		&wire.Attach{Name: "ask", Handle: 2, Target: wire.NewTarget("$management")},
		&wire.Attach{Name: "answer", Handle: 3, Receiver: true, Source: wire.NewTarget("$management"), Target: reply},
		&wire.Flow{IncomingWindow: 10, Handle: id(1), LinkCredit: id(10), Drain: true, Echo: true},
		&wire.Flow{IncomingWindow: 10, Handle: id(3), LinkCredit: id(10)},
	}
	var seed []byte
	for _, p := range frames {
		seed = wire.AppendFrame(seed, wire.FrameAMQP, 0, p, nil)
	}
	f.Add(seed)
	full := wire.AppendFrame(seed, wire.FrameAMQP, 0, &wire.Transfer{DeliveryID: id(0)}, message("event"))
	full = wire.AppendFrame(full, wire.FrameAMQP, 0, &wire.Transfer{Handle: 2, DeliveryID: id(1)}, request)
	full = wire.AppendFrame(full, wire.FrameAMQP, 0, &wire.Detach{Handle: 1, Closed: true}, nil)
	full = wire.AppendFrame(full, wire.FrameAMQP, 0, &wire.Disposition{Receiver: true, State: wire.Accepted()}, nil)
	full = wire.AppendFrame(full, wire.FrameAMQP, 0, &wire.End{}, nil)
	f.Add(wire.AppendFrame(full, wire.FrameAMQP, 0, &wire.Close{}, nil))

	s, err := New(Config{Addr: "127.0.0.1:0", Hubs: []Hub{{Name: "logs", Partitions: 2}}, Retention: Retention{Events: 100}})
	if err != nil {
		f.Fatal(err)
	}
	_ = s.Close() // only its connections are wanted
	var opening []byte
	opening = append(opening, headerSASL[:]...)
	opening = wire.AppendFrame(opening, wire.FrameSASL, 0, &wire.SASLInit{Mechanism: anonymous}, nil)
	opening = append(opening, headerAMQP[:]...)
	opening = wire.AppendFrame(opening, wire.FrameAMQP, 0, &wire.Open{ContainerID: "fuzz", MaxFrameSize: 512}, nil)
	f.Fuzz(func(t *testing.T, in []byte) {
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			newConn(s, ours).serve(context.Background())
		}()
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(io.Discard, theirs)
		}()
		_, _ = theirs.Write(append(opening[:len(opening):len(opening)], in...))
		_ = theirs.Close()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("the connection does not end")
		}
		<-read
	})
}
