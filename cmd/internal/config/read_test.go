package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/cmd/internal/config"
)

// Every fault of the text and of what it says comes at once, in the order of the
// file.
func TestAllFaultsAtOnce(t *testing.T) {
	_, err := config.Parse([]byte(`
strat: now
max_batch_age: 5
listne: ""
accounts:
  - name: logs
    endpoit: https://logs.blob.core.windows.net
    containers: flowlogs
    key: hunter2
eventhubs:
  - {hub: h, transport: websockets, identity: {kind: workload, cliend_id: x}}
database: flows
clickhouse: [a]
sweeper: {interval: {}}
`))
	var have []string
	for _, f := range config.FaultsOf(err) {
		have = append(have, f.Error())
	}
	want := []string{
		`[2:1] strat: unknown key, did you mean start?`,
		`[3:16] max_batch_age: want a time with its unit, such as 5s or 10m`,
		`[4:1] listne: unknown key, did you mean listen?`,
		`[7:5] accounts[0].endpoit: unknown key, did you mean endpoint?`,
		`[8:17] accounts[0].containers: want a list: each entry begins with a dash, or [A, B]`,
		`[9:10] accounts[0].key: string was used where keys and values are expected; a secret is named, never written: {env: NAME} or {file: PATH}`,
		`[11:5] eventhubs[0].namespace: "": want the full name of the namespace, such as NAME.servicebus.windows.net`,
		`[11:25] eventhubs[0].transport: "websockets": want "amqp" or "websocket"`,
		`[11:64] eventhubs[0].identity.cliend_id: unknown key, did you mean client_id?`,
		`[12:1] database: unknown key, it belongs to clickhouse.database`,
		`[13:13] clickhouse: want keys and values, one of url, servers, cluster, database, user, password, ca_file, allow_non_empty, max_excerpt_mib`,
		`[14:21] sweeper.interval: want a time with its unit, such as 5s or 10m`,
		`state: missing: name a folder for the ledger, such as ./state`,
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("the error shows a secret")
	}
}

const base = `
state: s
start: now
clickhouse: {url: "http://h:8123"}
`

// What a section does not name comes from the pipeline; null is the default.
func TestIdentityOfThePipeline(t *testing.T) {
	c, err := config.Parse([]byte(base + `
listen:
identity: {kind: managed, client_id: abc}
accounts:
  - {name: one, endpoint: "https://one.blob.core.windows.net", containers: [flowlogs]}
  - {name: two, endpoint: "http://two.example", containers: [flowlogs], key: {env: X}}
  - {name: three, endpoint: "https://three.example", containers: [flowlogs], identity: {}}
eventhubs:
  - {hub: h, namespace: n.servicebus.windows.net}
  - {hub: h, connection_string: {file: /f}, consumer_group: g, transport: websocket}
`))
	if err != nil {
		t.Fatal(err)
	}
	pipeline := &config.Identity{Kind: "managed", ClientID: "abc"}
	for i, want := range []*config.Identity{pipeline, nil, {Kind: "default"}} {
		if diff := cmp.Diff(want, c.Accounts[i].Identity); diff != "" {
			t.Errorf("account %d: %s", i, diff)
		}
	}
	want := []config.EventHub{
		{Hub: "h", Namespace: "n.servicebus.windows.net", ConsumerGroup: "$Default", Transport: "amqp", Identity: pipeline},
		{Hub: "h", ConnectionString: config.Reference{File: "/f"}, ConsumerGroup: "g", Transport: "websocket"},
	}
	if diff := cmp.Diff(want, c.EventHubs); diff != "" {
		t.Error(diff)
	}
	if c.Listen != "127.0.0.1:9464" {
		t.Errorf("listen is %q", c.Listen)
	}
}

func TestFaultsOfAzure(t *testing.T) {
	for yaml, want := range map[string]string{
		`{name: a, endpoint: "http://a.example", containers: [flowlogs], identity: {}}`:                               "accounts[0].endpoint: an identity needs https",
		`{name: a, endpoint: "https://a.example", containers: [flowlogs], identity: {}, key: {env: X}}`:               "accounts[0]: want exactly one of key, sas, connection_string and identity",
		`{name: a, endpoint: "https://a.example", containers: [Flow_Logs], key: {env: X}}`:                            `accounts[0].containers[0]: "Flow_Logs": want 3 to 63`,
		`{name: a, endpoint: "https://a.example", containers: [flowlogs, flowlogs], key: {env: X}}`:                   `accounts[0].containers[1]: "flowlogs" is in the list twice`,
		`{name: a, endpoint: "https://a.example", containers: [flowlogs], key: {env: X, file: Y}}`:                    "accounts[0].key: names both env and file",
		`{name: a, endpoint: "https://a.example", containers: [flowlogs], identity: {kind: password}}`:                `accounts[0].identity.kind: "password": want "default", "workload", "managed", "cli" or "env"`,
		`{name: a, endpoint: "https://a.example", containers: [flowlogs], identity: {kind: cli, client_id: x}}`:       `accounts[0].identity.client_id: not for kind cli, only for "workload" or "managed"`,
		`{name: a, endpoint: "https://a.example", containers: [flowlogs], identity: {authority: "http://x.example"}}`: "accounts[0].identity.authority: no plain https address",
	} {
		_, err := config.Parse([]byte(base + "accounts:\n  - " + yaml))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, have: %v", yaml, want, err)
		}
	}
}

// Anchors and merged keys are YAML that people use for a list of accounts.
func TestAnchors(t *testing.T) {
	c, err := config.Parse([]byte(base + `
accounts:
  - &first
    name: one
    endpoint: https://one.blob.core.windows.net
    containers: &logs [flowlogs]
    identity: &id {kind: cli}
  - {<<: *first, name: two, endpoint: "https://two.blob.core.windows.net"}
  - {name: three, endpoint: "https://three.blob.core.windows.net", containers: *logs, identity: *id}
`))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"one", "two", "three"} {
		a := c.Accounts[i]
		if a.Name != name || !cmp.Equal(a.Containers, []string{"flowlogs"}) || a.Identity == nil || a.Identity.Kind != "cli" {
			t.Errorf("account %d: %+v", i, a)
		}
	}
}

// Secrets are found in every section, also in those that are written later.
func TestCheckSecrets(t *testing.T) {
	c, err := config.Parse([]byte(base + `
accounts:
  - {name: one, endpoint: "https://one.example", containers: [flowlogs], sas: {env: MILLRACE_TEST_UNSET_1}}
  - {name: two, endpoint: "https://two.example", containers: [flowlogs], connection_string: {file: /does/not/exist}}
`))
	if err != nil {
		t.Fatal(err)
	}
	c.ClickHouse.Password.Env = "MILLRACE_TEST_UNSET_2"
	err = c.CheckSecrets()
	for _, want := range []string{
		`accounts[0].sas: environment variable "MILLRACE_TEST_UNSET_1" is empty: export it`,
		"accounts[1].connection_string: read secret:", `clickhouse.password: environment variable "MILLRACE_TEST_UNSET_2" is empty: export it`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have: %v", want, err)
		}
	}
}

// No text makes the reader panic, and what it accepts is valid.
func FuzzParse(f *testing.F) {
	f.Add([]byte(base))
	f.Add([]byte("a: &x [*x]\n? b\n: c\n"))
	f.Add([]byte("identity: &x {<<: *x}"))
	f.Add([]byte("accounts: [{<<: {}, name: ~}]\n---\nx"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse(data)
		if err != nil {
			return
		}
		if _, err := c.StartTime(time.Now()); err != nil {
			t.Errorf("accepted, but: %v", err)
		}
	})
}
