package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// layout is where one embedded server keeps what: everything below one folder.
type layout struct {
	root string
}

func (l layout) data() string   { return filepath.Join(l.root, "data") }
func (l layout) etc() string    { return filepath.Join(l.root, "etc") }
func (l layout) config() string { return filepath.Join(l.etc(), "config.xml") }
func (l layout) users() string  { return filepath.Join(l.etc(), "users.xml") }

// writeConfig makes the folders and the configuration files of a server. The
// files are rewritten at each start, so a change of options takes effect.
func writeConfig(o options) (layout, error) {
	l := layout{root: o.path}
	extras := filepath.Join(l.etc(), "config.d")
	for _, dir := range []string{l.data(), extras} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return l, fmt.Errorf("prepare data folder: %w", err)
		}
	}
	if err := os.WriteFile(l.config(), []byte(renderConfig(o, l)), 0o600); err != nil {
		return l, fmt.Errorf("write configuration: %w", err)
	}
	if err := os.WriteFile(l.users(), []byte(renderUsers(o)), 0o600); err != nil {
		return l, fmt.Errorf("write users: %w", err)
	}
	return l, copyExtra(o.extraConfig, extras)
}

// copyExtra puts the user's own configuration file where ClickHouse merges it
// over ours, and removes one left by an earlier start.
func copyExtra(from, dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, "extra.*"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("remove old extra configuration: %w", err)
		}
	}
	if from == "" {
		return nil
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read extra configuration: %w", err)
	}
	ext := strings.ToLower(filepath.Ext(from))
	switch ext {
	case ".xml", ".yaml", ".yml":
	default:
		return fmt.Errorf("read extra configuration: %q does not end in .xml, .yaml or .yml", from)
	}
	return os.WriteFile(filepath.Join(dir, "extra"+ext), text, 0o600)
}

// renderConfig is the server's configuration. The caches are small because
// the process shares a laptop with a pipeline; the settings of MergeTree are
// left alone, so that tables behave as on any server.
func renderConfig(o options, l layout) string {
	var b strings.Builder
	b.WriteString("<clickhouse>\n")
	elem := func(name, value string) {
		fmt.Fprintf(&b, "  <%s>%s</%s>\n", name, escape(value), name)
	}
	elem("users_config", l.users())
	elem("listen_host", listenHost)
	elem("mark_cache_size", "67108864")
	elem("uncompressed_cache_size", "0")
	elem("index_mark_cache_size", "16777216")
	elem("index_uncompressed_cache_size", "0")
	if o.memoryLimit > 0 {
		elem("max_server_memory_usage", fmt.Sprint(o.memoryLimit))
	}
	if o.logFile != "" {
		fmt.Fprintf(&b, "  <logger>\n    <level>%s</level>\n    <log>%s</log>\n    <errorlog>%s</errorlog>\n    <size>16M</size>\n    <count>2</count>\n  </logger>\n",
			escape(o.logLevel), escape(o.logFile), escape(o.logFile+".err"))
	}
	b.WriteString("</clickhouse>\n")
	return b.String()
}

// grants is all that clients may do: everything with tables and queries,
// nothing with the files of this machine or with addresses elsewhere, other
// ClickHouse servers excepted. ClickHouse's local mode, which serves us, would
// otherwise read any file for whoever reaches the port. SYSTEM LISTEN is for our own first statements.
const grants = "SHOW, SELECT, INSERT, ALTER, CREATE, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, " +
	"KILL QUERY, dictGet, INTROSPECTION, CLUSTER, REMOTE, SYSTEM LISTEN, " +
	"SYSTEM MERGES, SYSTEM TTL MERGES, SYSTEM FLUSH, SYSTEM DROP CACHE, SYSTEM RELOAD, SYSTEM VIEWS, SYSTEM SENDS"

// engines are the table and database engines that keep their data in this
// server or read other tables.
var engines = []string{
	"Atomic", "MergeTree", "ReplacingMergeTree", "SummingMergeTree", "AggregatingMergeTree", "CollapsingMergeTree",
	"VersionedCollapsingMergeTree", "CoalescingMergeTree", "GraphiteMergeTree", "Log", "TinyLog", "StripeLog", "Memory", "Null", "Set",
	"Join", "Buffer", "Merge", "Distributed", "Dictionary", "Alias", "Loop", "GenerateRandom", "View", "MaterializedView",
}

// renderUsers is the users file; everyone in it is let in from this machine
// only. Without a password clients work as "default". With one they are
// "millrace"; "default" then stays without a password, because the local mode
// runs its own statements as that user, but can do nothing else than those
// statements do. The third user, whose password is made at each start, is who
// we ask the server as.
func renderUsers(o options) string {
	client := []string{grants + " ON *.*"}
	for _, engine := range engines {
		client = append(client, "TABLE ENGINE ON `"+engine+"`")
	}
	users := user("default", "<no_password/>", client...)
	if o.password != "" {
		users = user("default", "<no_password/>", "SYSTEM LISTEN ON *.*", "SELECT ON system.numbers") +
			user("millrace", hashed(o.password), client...)
	}
	users += user(keeperUser, hashed(o.token), "SHOW, SELECT, KILL QUERY ON *.*")
	return "<clickhouse>\n  <profiles><default/></profiles>\n  <quotas><default/></quotas>\n  <users>\n" + users + "  </users>\n</clickhouse>\n"
}

func user(name, password string, grants ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "    <%s>\n      %s<networks><ip>127.0.0.1</ip><ip>::1</ip></networks>\n", name, password)
	b.WriteString("      <profile>default</profile><quota>default</quota>\n      <grants>\n")
	for _, g := range grants {
		fmt.Fprintf(&b, "        <query>GRANT %s</query>\n", g)
	}
	fmt.Fprintf(&b, "      </grants>\n    </%s>\n", name)
	return b.String()
}

func hashed(password string) string {
	sum := sha256.Sum256([]byte(password))
	return "<password_sha256_hex>" + hex.EncodeToString(sum[:]) + "</password_sha256_hex>"
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // A strings.Builder never fails.
	return b.String()
}
