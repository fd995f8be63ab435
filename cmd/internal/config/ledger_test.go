package config

import (
	"strings"
	"testing"
	"time"
)

const ledgerBase = `
state: ./state
start: now
accounts: [{name: a, endpoint: "http://127.0.0.1:1/a", containers: [logs], key: {env: K}}]
clickhouse: {url: "http://127.0.0.1:1"}
`

func TestLedgerInAContainer(t *testing.T) {
	c, err := Parse([]byte(ledgerBase))
	if err != nil || c.Ledger.Azure != nil || c.Ledger.Expiry != time.Minute || c.LedgerPlace() != `folder "./state"` {
		t.Errorf("without a ledger: %+v, %v", c.Ledger, err)
	}
	c, err = Parse([]byte(ledgerBase + "ledger: {azure: {name: l, endpoint: \"https://l.blob.core.windows.net\", container: ledgers, prefix: p, sas: {env: S}}}\n"))
	if err != nil || c.Ledger.Expiry != time.Minute || c.LedgerPlace() != `container "l/ledgers/p"` || len(c.LedgerAccounts()) != 1 {
		t.Errorf("with a container: %+v, %v", c.Ledger, err)
	}
	_, err = Parse([]byte(ledgerBase + "ledger: {expiry: 4s, azure: {endpoint: x}}\n"))
	for _, want := range []string{"ledger.expiry: 4s: want at least 5s", "ledger.azure.name: missing", "ledger.azure.endpoint: no plain", "ledger.azure.container: missing", "ledger.azure: want exactly one of key, sas and identity"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}
