package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseOptionsReportsEveryFault(t *testing.T) {
	t.Setenv("MILLRACE_LIBCHDB", "")
	_, err := parseOptions([]string{"--http-port", "0", "--tcp-port", "70000", "stray"}, io.Discard)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"--path is missing", "MILLRACE_LIBCHDB", "--http-port is 0", "--tcp-port is 70000", `"stray"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

func TestParseOptionsReadsTheEnvironment(t *testing.T) {
	t.Setenv("MILLRACE_LIBCHDB", "/lib/of/mine.so")
	t.Setenv("MILLRACE_CLICKHOUSE_PASSWORD", "pass")
	o, err := parseOptions([]string{"--path", "/data", "--die-with-parent"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.lib != "/lib/of/mine.so" || o.password != "pass" || !o.dieWithParent || o.httpPort != 8123 || o.tcpPort != 9000 {
		t.Errorf("options %+v", o)
	}
}

func TestSamePortTwiceIsAFault(t *testing.T) {
	o := options{path: "/data", lib: "/lib", httpPort: 9000, tcpPort: 9000}
	if err := o.validate(nil); err == nil || !strings.Contains(err.Error(), "both 9000") {
		t.Errorf("validate: %v", err)
	}
}

// TestConfigurationIsXML parses what is written, with values that need care.
func TestConfigurationIsXML(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `a & b <c> "d"`)
	o := options{path: dir, memoryLimit: 123456, logFile: filepath.Join(dir, "log & more"), logLevel: "debug", password: "p<w", token: "t0k3n"}
	l, err := writeConfig(o)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Users  string `xml:"users_config"`
		Listen string `xml:"listen_host"`
		Memory string `xml:"max_server_memory_usage"`
		Log    string `xml:"logger>log"`
	}
	readXML(t, l.config(), &config)
	if config.Users != l.users() || config.Listen != "127.0.0.1" || config.Memory != "123456" || config.Log != o.logFile {
		t.Errorf("configuration %+v", config)
	}
	text := readXML(t, l.users(), &struct{}{})
	if strings.Contains(text, o.password) || strings.Contains(text, o.token) {
		t.Errorf("a password stands in the users file:\n%s", text)
	}
	info, err := os.Stat(l.users())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("users file: %v, %v, want mode 0600", info.Mode(), err)
	}
}

func readXML(t *testing.T, path string, into any) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v\n%s", path, err, text)
	}
	return string(text)
}

func TestExtraConfigurationReplacesTheOldOne(t *testing.T) {
	o := options{path: t.TempDir(), extraConfig: filepath.Join(t.TempDir(), "mine.yaml")}
	if err := os.WriteFile(o.extraConfig, []byte("a: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := writeConfig(o)
	if err != nil {
		t.Fatal(err)
	}
	merged := filepath.Join(l.etc(), "config.d", "extra.yaml")
	if text, err := os.ReadFile(merged); err != nil || string(text) != "a: 1\n" {
		t.Errorf("extra configuration %q, %v", text, err)
	}
	o.extraConfig = ""
	if _, err := writeConfig(o); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(merged); !os.IsNotExist(err) {
		t.Errorf("the extra configuration of an earlier start is still there: %v", err)
	}
	o.extraConfig = filepath.Join(t.TempDir(), "mine.conf")
	if err := os.WriteFile(o.extraConfig, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := writeConfig(o); err == nil || !strings.Contains(err.Error(), ".xml, .yaml or .yml") {
		t.Errorf("an extra configuration of another kind: %v", err)
	}
}

// answer makes a control that talks to a server which always says the same.
func answer(t *testing.T, status int, text string) *control {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return newControl(options{httpPort: number, token: "abc"})
}

func TestReadyOnlyWhenItIsOurServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := answer(t, http.StatusOK, "1\n").waitReady(ctx); err != nil {
		t.Errorf("our server: %v", err)
	}
	for name, c := range map[string]*control{
		"another server answers": answer(t, http.StatusOK, "0\n"),
		"403 Forbidden: no":      answer(t, http.StatusForbidden, "no"),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*pollInterval)
		if err := c.waitReady(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want it never to be ready", name, err)
		}
		cancel()
		if err := c.lastError(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("last error %v, want it to say %q", err, name)
		}
	}
}

func TestKeepAliveQueryIsFoundByItsCondition(t *testing.T) {
	c := newControl(options{token: "abc"})
	last := c.keepAliveQuery()[strings.LastIndex(c.keepAliveQuery(), "; ")+2:]
	if !strings.HasPrefix(last, "SELECT sleepEachRow") || !strings.Contains(last, c.token) {
		t.Errorf("the keep-alive query %q does not fit %q", last, c.condition())
	}
	if strings.Contains(last, ";") {
		t.Errorf("the keep-alive query is more than one statement: %q", last)
	}
}

func TestLibraryThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libchdb.so")
	if err := os.WriteFile(path, []byte("no library"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := openLibrary(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("openLibrary: %v, want an error that names the file", err)
	}
}
