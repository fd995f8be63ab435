//go:build unix

package localtest

import (
	"context"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/deploy/local/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ask(t *testing.T, url, sql string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post(url, "text/plain", strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s (%v)", sql, resp.Status, body, err)
	}
	return strings.TrimSpace(string(body))
}

func TestClickHouseAnswersOnBothPorts(t *testing.T) {
	url, addr := StartClickHouse(t)
	if got := ask(t, url, "SELECT 6 * 7"); got != "42" {
		t.Errorf("SELECT 6 * 7 = %q, want 42", got)
	}
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestClickHouseKeepsRowsOverKill(t *testing.T) {
	dir := t.TempDir()
	ch := StartClickHouseIn(t, dir)
	ask(t, ch.HTTPURL, "CREATE DATABASE d ENGINE = Atomic")
	ask(t, ch.HTTPURL, "CREATE TABLE d.t (n UInt64) ENGINE = MergeTree ORDER BY n")
	ask(t, ch.HTTPURL, "INSERT INTO d.t SELECT number FROM numbers(100000)")
	ch.Kill()
	ch = StartClickHouseIn(t, dir)
	if got := ask(t, ch.HTTPURL, "SELECT sum(n) FROM d.t"); got != "4999950000" {
		t.Errorf("sum after kill -9 and restart = %q, want 4999950000", got)
	}
}

func TestAzuriteKeepsABlob(t *testing.T) {
	endpoint, account, key := StartAzurite(t)
	cred, err := azblob.NewSharedKeyCredential(account, key)
	if err != nil {
		t.Fatal(err)
	}
	options := &azblob.ClientOptions{}
	options.Transport = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	client, err := azblob.NewClientWithSharedKeyCredential(endpoint, cred, options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateContainer(t.Context(), "logs", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.UploadBuffer(t.Context(), "logs", "a/b.json", []byte("{}"), nil); err != nil {
		t.Fatal(err)
	}
	got, err := client.DownloadStream(t.Context(), "logs", "a/b.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err != nil || string(body) != "{}" {
		t.Errorf("blob = %q, %v, want {}", body, err)
	}
}

// TestKafkaKeepsMessagesOverKill lets kcat, a client of others, write and read.
func TestKafkaKeepsMessagesOverKill(t *testing.T) {
	kcat, dir := Kcat(t), t.TempDir()
	k := StartKafkaIn(t, servers.KafkaOptions{Dir: dir})
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Addr))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, nil, "words"); err != nil {
		t.Fatal(err)
	}
	client.Close()
	run(t, "one\ntwo\n", kcat, "-P", "-b", k.Addr, "-t", "words")
	k.Kill()
	k = StartKafkaIn(t, servers.KafkaOptions{Dir: dir, Port: k.Port})
	if got := run(t, "", kcat, "-C", "-q", "-e", "-b", k.Addr, "-t", "words"); got != "one\ntwo\n" {
		t.Errorf("after kill -9 and restart: %q, want two words", got)
	}
}

func run(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return string(out)
}
