package check_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cmd/internal/check"
	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/ledger/azureblob"
	"github.com/millrace/millrace/pipeline/secret"
)

const key = "a2V5a2V5a2V5"

// of gives what was found at a key and below it, a line a finding. The target is
// nobody, whose faults are left out.
func of(t *testing.T, section, text string, offline bool) string {
	t.Helper()
	t.Setenv("TEST_KEY", key)
	if !strings.Contains(text, "clickhouse:") {
		text += "clickhouse: {url: \"http://127.0.0.1:1\"}\n"
	}
	var b strings.Builder
	for _, f := range check.Run(t.Context(), []byte(text), offline) {
		if strings.HasPrefix(f.Key, section) {
			fmt.Fprintf(&b, "%s %s: %s\n", f.Level, f.Key, f.Text)
		}
	}
	return b.String()
}

func wants(t *testing.T, have string, want ...string) {
	t.Helper()
	if n := strings.Count(have, "\n"); n != len(want) {
		t.Errorf("%d findings, want %d:\n%s", n, len(want), have)
	}
	for _, w := range want {
		if !strings.Contains(have, w) {
			t.Errorf("no %q in:\n%s", w, have)
		}
	}
}

func TestDirectories(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"good": 0o755, "open": 0o777} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	text := "state: " + dir + "/state\nstart: now\ndirectories:\n"
	for i, name := range []string{"good", "open", "file", "none"} {
		text += fmt.Sprintf("  - {path: %s/%s, account: a, container: c%d}\n", dir, name, i)
	}
	wants(t, of(t, "directories", text, true),
		"ok directories[0].path: the folder can be read",
		"warn directories[1].path: everybody on this machine may write into",
		"fault directories[2].path: \""+dir+"/file\" is no folder",
		"fault directories[3].path: stat "+dir+"/none: no such file or directory: name a folder")
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf(`
state: %[1]s/state
start: now
directories: [{path: %[1]s}]
filters:
  - {name: inside, drop: true, src_file: %[1]s/list.txt}
enrich: {names_file: %[1]s/names.csv}
`, dir)
	wants(t, of(t, "filters", text, true), "fault filters: open "+dir+"/list.txt: no such file")
	wants(t, of(t, "enrich", text, true), "fault enrich: open "+dir+"/names.csv: no such file")
	for name, content := range map[string]string{"list.txt": "10.0.0.0/8\n", "names.csv": "cidr,name\n10.0.0.1/8,x\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wants(t, of(t, "filters", text, true), "ok filters: the filters and their files can be used")
	wants(t, of(t, "enrich", text, true), "line 2: ")
}

func shared(endpoint, account, key string) string {
	return fmt.Sprintf(`
state: s
start: now
directories: [{path: .}]
ledger: {azure: {name: %s, endpoint: "%s", container: ledger, %s}}
`, account, endpoint, key)
}

// A container that is missing, empty, owned, and one whose credential may read only.
func TestSharedLedger(t *testing.T) {
	server := blobtest.Start(t)
	text := shared(server.Endpoint("acc"), "acc", "key: {env: TEST_KEY}")
	wants(t, of(t, "ledger", text, false), `warn ledger.azure.container: there is no container "ledger"`)
	account := blob.AccountConfig{Name: "acc", Endpoint: server.Endpoint("acc"), SharedKey: secret.New(key)}
	store, err := azureblob.New(azureblob.DefaultConfig(account, "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if err := store.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	rights := "ok ledger.azure: may be listed, read, written and deleted in"
	wants(t, of(t, "ledger", text, false), rights, "ok ledger.azure: no instance owns it")
	lease, err := ledger.Own(t.Context(), store, ledger.OwnerConfig{Instance: "one", Expiry: time.Minute}, func(ledger.Owner) {})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, of(t, "ledger", text, false), rights, `ok ledger.azure: instance "one" owns it since epoch 1`)
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants(t, of(t, "ledger", text, false), rights, `no instance owns it; the last one was "one"`)
	for _, op := range []string{"put", "delete"} {
		server.SetFault(func(r blobtest.Request) *blobtest.Fault {
			if r.Op == op {
				return &blobtest.Fault{Status: http.StatusForbidden, Code: "AuthorizationPermissionMismatch"}
			}
			return nil
		})
		wants(t, of(t, "ledger", text, false), "fault ledger.azure: ")
		if have := of(t, "ledger", text, false); !strings.Contains(have, "Storage Blob Data Contributor") {
			t.Errorf("without the right to %s: %s", op, have)
		}
	}
	if names, err := store.List(t.Context(), ""); err != nil || len(names) != 1 {
		t.Errorf("it left something: %q, %v", names, err)
	}
}

func TestSharedLedgerInAzurite(t *testing.T) {
	endpoint, name, key := localtest.StartAzurite(t)
	account := blob.AccountConfig{Name: name, Endpoint: endpoint, SharedKey: secret.New(key)}
	store, err := azureblob.New(azureblob.DefaultConfig(account, "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	t.Setenv("TEST_LEDGER_KEY", key)
	text := shared(endpoint, name, "key: {env: TEST_LEDGER_KEY}")
	wants(t, of(t, "ledger", text, false), `there is no container "ledger"`)
	if err := store.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants(t, of(t, "ledger", text, false), "may be listed, read, written and deleted in", "no instance owns it")
	if names, err := store.List(t.Context(), ""); err != nil || len(names) != 0 {
		t.Errorf("it left something: %q, %v", names, err)
	}
}

// Each server of a cluster is asked, and each is told apart.
func TestCluster(t *testing.T) {
	c := localtest.StartCluster(t, 2)
	text := func(cluster, second string) string {
		return fmt.Sprintf(`
state: s
start: now
directories: [{path: .}]
clickhouse: {servers: ["%s", "%s"], cluster: %s}
`, c.Servers[0].HTTPURL, second, cluster)
	}
	second := "tcp://" + c.Servers[1].TCPAddr
	wants(t, of(t, "clickhouse", text(localtest.ClusterName, second), false), "ok clickhouse.servers[0]: ", "ok clickhouse.servers[1]: ")
	wants(t, of(t, "clickhouse", text("other", second), false),
		`fault clickhouse.servers[0]: cluster "other" is unknown: see remote_servers`, `fault clickhouse.servers[1]: cluster "other" is unknown`)
	wants(t, of(t, "clickhouse", text(localtest.ClusterName, "http://127.0.0.1:1"), false),
		"ok clickhouse.servers[0]: ", "fault clickhouse.servers[1]: check the server: ")
}

// Topics that are missing are made by a start, or are a fault; those that are there
// must keep what the promise needs. Nothing is made.
func TestKafka(t *testing.T) {
	addr := localtest.StartKafka(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	admin := kadm.NewClient(client)
	text := func(addr, create string) string {
		return fmt.Sprintf(`
state: s
start: now
accounts: [{name: a, endpoint: "http://127.0.0.1:1/a", containers: [flowlogs]}]
sweeper: {interval: 0s}
kafka: {brokers: ["%[1]s"], progress_topic: progress, topics: {flows: rows}, create_topics: %[2]s}
kafka_sources: [{brokers: ["%[1]s"], topic: events}]
`, addr, create)
	}
	wants(t, of(t, "kafka", text(addr, "true"), false),
		"warn kafka.topics: not there yet, and made at the first start: rows, progress",
		"ok kafka: the brokers answer, the topics are as the promise needs them, transactions are possible",
		`fault kafka_sources[0]: kafka topic "events": UNKNOWN_TOPIC_OR_PARTITION`)
	wants(t, of(t, "kafka", text(addr, "false"), false),
		`fault kafka: topic "rows" is missing: create it, or set create_topics`,
		`topic "progress" is missing: create it`, `fault kafka_sources[0]: `)
	if there, err := admin.ListTopics(t.Context()); err != nil || there.Has("rows") || there.Has("progress") || there.Has("events") {
		t.Errorf("it made topics: %v, %v", there.Names(), err)
	}
	if _, err := admin.CreateTopics(t.Context(), 2, 1, nil, "rows", "progress", "events"); err != nil {
		t.Fatal(err)
	}
	wants(t, of(t, "kafka", text(addr, "true"), false),
		`fault kafka: topic "progress": cleanup.policy is "delete", want compact`,
		`ok kafka_sources[0]: topic "events" may be read, 2 partitions; so may the group "millrace"`)
	compact := "compact"
	changed, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "cleanup.policy", Value: &compact}}, "progress")
	if err != nil || changed[0].Err != nil {
		t.Fatal(err, changed)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		c, err := admin.DescribeTopicConfigs(t.Context(), "progress")
		if err != nil || time.Now().After(deadline) {
			t.Fatal("the topic's policy does not change", err)
		}
		if slices.ContainsFunc(c[0].Configs, func(c kadm.Config) bool { return c.Key == "cleanup.policy" && c.MaybeValue() == compact }) {
			break
		}
	}
	wants(t, of(t, "kafka", text(addr, "false"), false), "ok kafka: the brokers answer", "ok kafka_sources[0]: ")
	wants(t, of(t, "kafka", text("127.0.0.1:1", "false"), false), "fault kafka.brokers: ", "fault kafka_sources[0].brokers: ")
}
