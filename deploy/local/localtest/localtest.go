// Package localtest starts real servers for tests of any room. Where the parts
// are stands in the environment (see package pipelinetest): without them a
// test is skipped, or fails when parts are required.
package localtest

import (
	"context"
	"testing"
	"time"

	"github.com/millrace/millrace/deploy/local/process"
	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// Environment variables that say where the parts are; `make test` sets them.
const (
	EnvClickHouse = "MILLRACE_CLICKHOUSE_BIN"
	EnvLibrary    = "MILLRACE_LIBCHDB"
	EnvAzurite    = "MILLRACE_AZURITE"
	EnvPython     = "MILLRACE_PYTHON"
	EnvKafka      = "MILLRACE_KAFKA"
	EnvKcat       = "MILLRACE_KCAT"
	EnvCountries  = "MILLRACE_COUNTRIES"
)

// memoryLimit keeps several test binaries at once within a small machine.
const memoryLimit = 4 << 30

const startTimeout = 90 * time.Second

// StartClickHouse starts an empty ClickHouse for one test and ends it with the
// test. The user is "default" without a password. httpURL is like
// "http://127.0.0.1:41234", tcpAddr like "127.0.0.1:41235". It costs 0.3 s and
// 210 MB: share one between subtests, and make a database for each.
func StartClickHouse(t testing.TB) (httpURL, tcpAddr string) {
	t.Helper()
	ch := StartClickHouseIn(t, t.TempDir())
	return ch.HTTPURL, ch.TCPAddr
}

// StartClickHouseIn is StartClickHouse on a data folder of the caller: a test
// that kills the server (ch.Kill) starts it again on the same folder and finds
// the data there. Two servers must not share a folder.
func StartClickHouseIn(t testing.TB, dir string) *servers.ClickHouse {
	t.Helper()
	bin := pipelinetest.RequirePart(t, EnvClickHouse)
	lib := pipelinetest.RequirePart(t, EnvLibrary)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	ch, err := servers.StartClickHouse(ctx, servers.ClickHouseOptions{Bin: bin, Lib: lib, Dir: dir, MemoryLimit: memoryLimit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, ch.Process) })
	return ch
}

// StartAzurite starts an empty blob storage for one test and ends it with the
// test. endpoint is like "http://127.0.0.1:41236/millrace"; key is the
// account's base64 key, made up for this test. It costs 1.1 s and 110 MB.
func StartAzurite(t testing.TB) (endpoint, account, key string) {
	t.Helper()
	script := pipelinetest.RequirePart(t, EnvAzurite)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	a, err := servers.StartAzurite(ctx, servers.AzuriteOptions{Script: script, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, a.Process) })
	return a.Endpoint, a.Account, a.Key
}

// StartKafka starts an empty Kafka broker for one test and ends it with the test.
// addr is like "127.0.0.1:41237". It costs 6 s and 310 MB: share one between
// tests, with topics for each.
func StartKafka(t testing.TB) (addr string) {
	t.Helper()
	return StartKafkaIn(t, servers.KafkaOptions{Dir: t.TempDir()}).Addr
}

// StartKafkaIn is StartKafka with options of the caller; the jar is set here.
func StartKafkaIn(t testing.TB, o servers.KafkaOptions) *servers.Kafka {
	t.Helper()
	o.Jar = pipelinetest.RequirePart(t, EnvKafka)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	k, err := servers.StartKafka(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, k.Process) })
	return k
}

// Kcat returns the path of kcat, an independent client of Kafka.
func Kcat(t testing.TB) string {
	t.Helper()
	return pipelinetest.RequirePart(t, EnvKcat)
}

// Python returns the interpreter of the environment with the official Python
// clients (azure-eventhub, clickhouse-connect).
func Python(t testing.TB) string {
	t.Helper()
	return pipelinetest.RequirePart(t, EnvPython)
}

// end kills the server, whose data nobody wants any more, and reports one that
// had ended before by itself: that is why the test failed.
func end(t testing.TB, p *process.Process) {
	select {
	case <-p.Done():
		if !p.Stopped() {
			t.Errorf("%v", p.ExitError())
		}
	default:
		p.Kill()
	}
}
