package localtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/millrace/millrace/deploy/local/servers"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// ClusterName is what the servers of a Cluster call it (remote_servers).
const ClusterName = "embedded"

// Cluster is several ClickHouse servers, each a shard, that know each other. Their
// ports and folders stay when one is killed and started again.
type Cluster struct {
	Servers []*servers.ClickHouse

	options []servers.ClickHouseOptions
}

// StartCluster starts n empty servers for one test and ends them with it.
func StartCluster(t testing.TB, n int) *Cluster {
	t.Helper()
	bin, lib := pipelinetest.RequirePart(t, EnvClickHouse), pipelinetest.RequirePart(t, EnvLibrary)
	c := &Cluster{Servers: make([]*servers.ClickHouse, n)}
	ports := freePorts(t, 2*n)
	shards := ""
	for i := range n {
		shards += fmt.Sprintf("<shard><replica><host>127.0.0.1</host><port>%d</port></replica></shard>", ports[2*i+1])
	}
	extra := filepath.Join(t.TempDir(), "cluster.xml")
	text := fmt.Sprintf("<clickhouse><remote_servers><%[1]s>%[2]s</%[1]s></remote_servers></clickhouse>", ClusterName, shards)
	if err := os.WriteFile(extra, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, s := range c.Servers {
			if s != nil {
				s.Kill()
			}
		}
	})
	for i := range n {
		c.options = append(c.options, servers.ClickHouseOptions{
			Bin: bin, Lib: lib, Dir: t.TempDir(), MemoryLimit: memoryLimit, ExtraConfig: extra, HTTPPort: ports[2*i], TCPPort: ports[2*i+1],
		})
		c.Start(t, i)
	}
	return c
}

// Start starts a server again that has ended.
func (c *Cluster) Start(t testing.TB, i int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	s, err := servers.StartClickHouse(ctx, c.options[i])
	if err != nil {
		t.Fatal(err)
	}
	c.Servers[i] = s
	if s.PortsMoved { // The others look for it where it was.
		t.Fatalf("server %d: somebody took its port meanwhile", i)
	}
}

// freePorts gives ports that nobody has. They are below those that systems give to
// clients: a server that is killed finds its own free when it is started again, and
// nobody who looks for it meanwhile connects to itself.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	const first, count = 20_000, 10_000
	ports := make([]int, 0, n)
	for tries := 0; len(ports) < n; tries++ {
		if tries == 100+n {
			t.Fatalf("no %d free ports from %d on", n, first)
		}
		port := first + rand.IntN(count)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer l.Close()
		ports = append(ports, port)
	}
	return ports
}
