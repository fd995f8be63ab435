package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestEmulatorCommand starts the command, finds the address in its output, connects
// and stops it.
func TestEmulatorCommand(t *testing.T) {
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cmd := newEmulatorCommand()
	cmd.SetArgs([]string{"--listen", "127.0.0.1:0", "--hub", "a:2", "--hub", "b:1"})
	cmd.SetOut(w)
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	var text strings.Builder
	var addr string
	for lines := bufio.NewScanner(r); addr == "" && lines.Scan(); {
		text.WriteString(lines.Text() + "\n")
		if rest, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			addr, _, _ = strings.Cut(rest, ";")
		}
	}
	for _, want := range []string{"a: 2 partitions", "b: 1 partitions", "Endpoint=sb://" + addr, "EntityPath=b"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, text.String())
		}
	}
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the command does not stop")
	}
}

func TestEmulatorUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--hub", "a"}, {"--hub", "a:x"}, {"--hub", "a:0"}, {"--hub", "a b:1"}, {"--listen", "nowhere"}, {"--age", "0s"}, {"more"},
	} {
		cmd := newEmulatorCommand()
		cmd.SetArgs(args)
		cmd.SetOut(new(bytes.Buffer))
		cmd.SetErr(new(bytes.Buffer))
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		var e *exitError
		if err := cmd.Execute(); !errors.As(err, &e) || e.code != exitUsage {
			t.Errorf("%q: error %v, want a usage error", args, err)
		}
	}
}
