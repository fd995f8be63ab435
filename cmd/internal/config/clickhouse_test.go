package config

import (
	"strings"
	"testing"
)

func TestClickHouseTargets(t *testing.T) {
	const head = "state: s\nstart: now\nshards: 2\naccounts: [{name: a, endpoint: 'https://a.blob.core.windows.net', containers: [logs], key: {env: K}}]\n"
	for _, c := range []struct {
		yaml string
		want []string // parts of the error; none: good
	}{
		{`clickhouse: {url: "http://h:8123"}`, nil},
		{`clickhouse: {url: "tls://h", ca_file: ca.pem}`, nil},
		{`clickhouse: {url: "clickhouse://h?secure=true"}`, nil},
		{`clickhouse: {servers: ["http://a:8123", "tcp://b"], cluster: logs}`, nil},
		{`clickhouse: {servers: ["http://a:8123"]}`, nil},
		{`clickhouse: {}`, []string{"clickhouse.url: "}},
		{`clickhouse: {url: "ftp://h"}`, []string{"clickhouse.url: ", "tcp://host:9000"}},
		{`clickhouse: {url: "http://a", servers: ["http://b"]}`, []string{"clickhouse.servers: url is set too"}},
		{`clickhouse: {url: "http://a", cluster: logs}`, []string{"clickhouse.cluster: servers is not set"}},
		{`clickhouse: {servers: ["http://a", "http://u:hunter2@b"]}`, []string{"clickhouse.servers[1]: "}},
		{`clickhouse: {servers: ["http://a", "http://b", "http://c"]}`, []string{"3 servers for 2 shards"}},
	} {
		_, err := Parse([]byte(head + c.yaml))
		if len(c.want) == 0 && err != nil {
			t.Errorf("%s: %v", c.yaml, err)
		}
		for _, part := range c.want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error is %v, want one with %q", c.yaml, err, part)
			}
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats a secret: %v", c.yaml, err)
		}
	}
}
