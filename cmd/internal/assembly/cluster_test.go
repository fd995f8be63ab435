package assembly_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/deploy/local/localtest"
)

// A pipeline lands in both servers of a cluster. One server and the pipeline are
// killed (-9) under load, the list of servers is turned around between two starts:
// the Distributed tables read back everything once.
func TestClusterUnderLoad(t *testing.T) {
	c := localtest.StartCluster(t, 2)
	// The first over HTTP, the second over native TCP.
	list := []string{c.Servers[0].HTTPURL, "tcp://" + c.Servers[1].TCPAddr}
	target := func(a, b string) string {
		return fmt.Sprintf("servers: [%q, %q]\n  cluster: %s", a, b, localtest.ClusterName)
	}
	w := newWorldOf(t, jobtest.Options{URL: c.Servers[0].HTTPURL, Target: target(list[0], list[1]), Extra: jobtest.SweeperSoon})
	stopEstate := w.Estate(10_000)
	more := func(what string, rows uint64) {
		t.Helper()
		before := w.Number("SELECT count() FROM millrace.flows")
		w.WaitUntil("more rows "+what, func() bool { return w.Number("SELECT count() FROM millrace.flows") > before+rows })
	}

	p := w.StartProgram()
	more("on both", 20_000)
	// The second server dies; the shards of the first one go on.
	c.Servers[1].Kill()
	before := w.Number("SELECT count() FROM millrace.flows_local")
	w.WaitUntil("more rows on the server that lives", func() bool {
		return w.Number("SELECT count() FROM millrace.flows_local") > before+2000
	})
	c.Start(t, 1)
	more("after one server was killed", 20_000)

	// The pipeline dies, and a server while it is away; the list is turned around.
	p.Stop(syscall.SIGKILL)
	c.Servers[1].Kill()
	c.Start(t, 1)
	w.YAML = strings.Replace(w.YAML, target(list[0], list[1]), target(list[1], list[0]), 1)
	p = w.StartProgram("--end-of-input-on-stop")
	more("after the pipeline was killed", 20_000)
	truth := stopEstate()
	if _, took := p.Stop(syscall.SIGTERM); p.Cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("end of input: exit code %d after %v", p.Cmd.ProcessState.ExitCode(), took)
	}

	if n := w.Number("SELECT count() FROM millrace.flows"); n != truth.Totals.Tuples {
		t.Errorf("%d rows, want %d", n, truth.Totals.Tuples)
	}
	if twice := w.Number(jobtest.AddressesTwice); twice != 0 {
		t.Errorf("%d tuple addresses are twice in flows", twice)
	}
	if n := w.Number("SELECT sum(rows) FROM millrace.windows_traffic_1m_merged"); n != truth.Totals.Tuples {
		t.Errorf("%d rows in windows, want %d", n, truth.Totals.Tuples)
	}
	if n := w.Number("SELECT sum(rows) FROM millrace.batches FINAL"); n != truth.Totals.Tuples {
		t.Errorf("%d rows of byte ranges, want %d", n, truth.Totals.Tuples)
	}
	// Each interface is on one server, and both have some.
	if got := w.Ask("SELECT max(n), uniqExact(arrayJoin(s)) FROM (SELECT uniqExact(_shard_num) AS n, groupUniqArray(_shard_num) AS s FROM millrace.flows GROUP BY mac)"); got != "1\t2" {
		t.Errorf("servers of an interface at most, and servers: %q, want 1 and 2", got)
	}
}
