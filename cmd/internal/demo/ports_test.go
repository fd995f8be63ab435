package demo

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/deploy/local/process"
)

// envListen makes this test binary a child that serves its process id on the port.
const envListen = "MILLRACE_DEMO_TEST_LISTEN"

func TestMain(m *testing.M) {
	if port := os.Getenv(envListen); port != "" {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			os.Exit(1)
		}
		servePID(l, os.Getpid())
		return
	}
	goleak.VerifyTestMain(m)
}

func servePID(l net.Listener, pid int) {
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(EstateStatus{PID: pid}) // the reader has gone away
	})) // ends with the listener
}

// Between the look at a port and the child's bind another demo takes it, and its
// child answers on it. That is noticed, and the next port is taken.
func TestLostPortsAreTriedAgain(t *testing.T) {
	var said strings.Builder
	d := &demo{say: newConsole(&said), http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	free, err := process.ReservePort(0)
	if err != nil {
		t.Fatal(err)
	}
	preferred := free.Number
	free.Release()
	free.Bound()

	var thieves []net.Listener
	var tried []int
	start := func(numbers []int) (*process.Process, error) {
		tried = append(tried, numbers[0])
		if len(tried) <= 2 {
			l, err := net.Listen("tcp", loopback(numbers[0]))
			if err != nil {
				return nil, err
			}
			thieves = append(thieves, l)
			go servePID(l, 1)
		}
		return process.Start(process.Config{Name: "child", Path: os.Args[0], Env: []string{envListen + "=" + strconv.Itoa(numbers[0])}})
	}
	ready := func(ctx context.Context, pid int) error {
		var s EstateStatus
		if err := d.get(ctx, "http://"+loopback(tried[len(tried)-1]), &s); err != nil {
			return err
		}
		return ours(s.PID, pid)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	child, err := d.onPorts(ctx, []wanted{{preferred, "the child"}}, start, ready)
	for _, l := range thieves {
		l.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	child.Kill()
	if len(tried) != 3 || tried[0] != preferred || !strings.Contains(said.String(), "the child listens on "+strconv.Itoa(tried[2])) {
		t.Errorf("ports %v were tried, said %q", tried, said.String())
	}
}

// A child that ends for another reason is not tried again; one that does not get
// ready is gone when its time is over.
func TestChildrenThatDoNotStart(t *testing.T) {
	d := &demo{say: newConsole(&strings.Builder{})}
	never := func(context.Context, int) error { return errors.New("not ready") }
	starts := 0
	_, err := d.onPorts(t.Context(), []wanted{{0, "the child"}}, func([]int) (*process.Process, error) {
		starts++
		return process.Start(process.Config{Name: "child", Path: "sh", Args: []string{"-c", "echo the disk is full >&2; exit 3"}})
	}, never)
	if starts != 1 || err == nil || !strings.Contains(err.Error(), "child ended: exit status 3: the disk is full") {
		t.Errorf("%d starts, %v", starts, err)
	}
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, late)
	defer cancel()
	var child *process.Process
	_, err = d.onPorts(ctx, []wanted{{0, "the child"}}, func([]int) (*process.Process, error) {
		var err error
		child, err = process.Start(process.Config{Name: "child", Path: "sleep", Args: []string{"60"}})
		return child, err
	}, never)
	if !errors.Is(err, late) {
		t.Errorf("%v, want %v", err, late)
	}
	select {
	case <-child.Done():
	default:
		t.Error("the child still runs")
	}
}
