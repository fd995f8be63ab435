package local

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// emptyMachine has no program at all and no part of the user's own.
func emptyMachine(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	t.Setenv("PATH", bin)
	for _, name := range []string{EnvLibrary, EnvAzurite, EnvPython, EnvJavaScript, EnvJava, EnvKafka, EnvKcat, EnvCountries, "CC"} {
		t.Setenv(name, "")
	}
	return bin
}

func program(t *testing.T, bin, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func status(r Report, subject string) Status {
	for _, c := range r.Checks {
		if c.Subject == subject {
			return c.Status
		}
	}
	return ""
}

func TestPreflightNamesEveryFaultAtOnce(t *testing.T) {
	emptyMachine(t)
	r := Preflight(t.Context(), Cache{Root: t.TempDir()}, Need{Purpose: ForTest})
	for _, subject := range []string{"node", "npm", "python", "java", "maven", "compiler", "strace"} {
		if got := status(r, subject); got != StatusFault {
			t.Errorf("%s: %q, want a fault", subject, got)
		}
	}
	for _, c := range r.Faults() {
		if c.Fix == "" {
			t.Errorf("%s has no fix", c.Subject)
		}
	}
	err := r.Err()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"node", "npm", "python", "java", "maven", "apt-get install"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %q: %v", want, err)
		}
	}
}

func TestPreflightIsQuickWhenToolsAreNot(t *testing.T) {
	bin := emptyMachine(t)
	for _, name := range []string{"node", "npm", "python3", "java", "go", "getconf"} {
		program(t, bin, name, "exec /bin/sleep 30")
	}
	began := time.Now()
	r := Preflight(t.Context(), Cache{Root: t.TempDir()}, Need{Purpose: ForTest})
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("preflight took %s, want about a second at most", took)
	}
	if got := status(r, "node"); got != StatusWarning {
		t.Errorf("node that does not answer: %q, want a warning", got)
	}
}

func TestPreflightReadsVersions(t *testing.T) {
	tests := []struct {
		name, program, prints string
		subject               string
		want                  Status
	}{
		{"old node", "node", "v18.20.1", "node", StatusFault},
		{"node", "node", "v20.0.0", "node", StatusOK},
		{"newer node", "node", "v25.1.0", "node", StatusOK},
		{"old npm", "npm", "6.14.4", "npm", StatusFault},
		{"npm", "npm", "11.19.1", "npm", StatusOK},
		{"old python", "python3", "3.9", "python", StatusFault},
		{"python", "python3", "3.11", "python", StatusOK},
		{"python to come", "python3", "3.15", "python", StatusFault},
		{"old java", "java", "openjdk 11.0.2 2019-01-15", "java", StatusFault},
		{"java", "java", "openjdk 17.0.15 2025-04-15", "java", StatusOK},
		{"first release of a java", "java", "openjdk 21 2023-09-19", "java", StatusOK},
		{"old go", "go", "go1.21.3", "go", StatusFault},
		{"go", "go", "go1.26.0", "go", StatusOK},
		{"rubbish", "node", "hello", "node", StatusFault},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bin := emptyMachine(t)
			program(t, bin, tt.program, "echo "+tt.prints)
			program(t, bin, "javac", "")
			r := Preflight(t.Context(), Cache{Root: t.TempDir()}, Need{Purpose: ForTest})
			if got := status(r, tt.subject); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.subject, got, tt.want)
			}
		})
	}
}

func TestPreflightSaysWhatWillBeDownloaded(t *testing.T) {
	emptyMachine(t)
	if clickhousePart().Checksum == "" {
		t.Skip("no ClickHouse library is pinned for this kind of machine")
	}
	r := Preflight(t.Context(), Cache{Root: t.TempDir()}, Need{Purpose: ForDemo})
	var b strings.Builder
	r.Write(&b)
	for _, want := range []string{"about 178 MB to download", "about 56 MB to download", "to download: about 234 MB"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, b.String())
		}
	}
	r = Preflight(t.Context(), Cache{Root: t.TempDir()}, Need{Purpose: ForDemo, NoClickHouse: true})
	if got := status(r, PartClickHouse); got != "" {
		t.Errorf("with a server of one's own the library is still checked: %q", got)
	}
}

func TestNpmMayBeAbsentWhenAllIsThere(t *testing.T) {
	emptyMachine(t)
	own := filepath.Join(t.TempDir(), "own")
	if err := os.WriteFile(own, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(EnvLibrary, own)
	t.Setenv(EnvAzurite, own)
	r := Preflight(t.Context(), Cache{Root: t.TempDir()}, Need{Purpose: ForDemo})
	if got := status(r, "npm"); got != StatusWarning {
		t.Errorf("npm: %q, want a warning", got)
	}
	if len(r.Missing) != 0 {
		t.Errorf("missing: %v", r.Missing)
	}
}

func TestJavaWithoutItsCompilerIsAFault(t *testing.T) {
	bin := emptyMachine(t)
	program(t, bin, "java", "echo openjdk 21 2023-09-19")
	if got := checkJava(t.Context()); got.Status != StatusFault || !strings.Contains(got.Found, "no javac") {
		t.Errorf("java without javac: %+v", got)
	}
}

func TestMavenMayBeAbsentWhenAllIsThere(t *testing.T) {
	bin := emptyMachine(t)
	if got := checkMaven(true); got.Status != StatusFault || got.Fix == "" {
		t.Errorf("maven that is needed: %+v, want a fault", got)
	}
	if got := checkMaven(false); got.Status != StatusWarning {
		t.Errorf("maven that is not needed: %+v, want a warning", got)
	}
	program(t, bin, toolMaven, "exit 1")
	if got := checkMaven(true); got.Status != StatusOK || got.Found != filepath.Join(bin, toolMaven) {
		t.Errorf("maven: %+v", got)
	}
	r := Report{Missing: []Part{javaPart()}}
	if !r.installs(toolMaven) || r.installs(toolNpm) || r.installs(toolPython) {
		t.Errorf("the Java part is installed by %q", javaPart().tool)
	}
}

func TestCheckSystem(t *testing.T) {
	for platform, want := range map[string]Status{
		"linux/amd64": StatusOK, "linux/arm64": StatusWarning, "darwin/arm64": StatusWarning,
		"windows/amd64": StatusFault, "linux/386": StatusFault,
	} {
		goos, goarch, _ := strings.Cut(platform, "/")
		if got := checkSystem(goos, goarch).Status; got != want {
			t.Errorf("%s: %q, want %q", platform, got, want)
		}
	}
}

func TestMuslIsAFault(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has two C libraries")
	}
	emptyMachine(t)
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "lib", "ld-musl-x86_64.so.1"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := checkLibc(t.Context(), root); got.Status != StatusFault || !strings.Contains(got.Fix, "--clickhouse URL") {
		t.Errorf("musl: %+v", got)
	}
}

func TestAvailableMemoryHeedsTheControlGroup(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"proc/meminfo":                 "MemTotal:       8000000 kB\nMemAvailable:    4000000 kB\n",
		"sys/fs/cgroup/memory.max":     "1500000000\n",
		"sys/fs/cgroup/memory.current": "500000000\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := availableMemory(root); err != nil || got != 1_000_000_000 {
		t.Errorf("available = %d, %v, want 1000000000", got, err)
	}
	if err := os.WriteFile(filepath.Join(root, "sys/fs/cgroup/memory.max"), []byte("max\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := availableMemory(root); err != nil || got != 4_000_000<<10 {
		t.Errorf("available without a limit = %d, %v, want %d", got, err, 4_000_000<<10)
	}
}

func TestDefaultCache(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("MILLRACE_CACHE", "")
	got, err := DefaultCache()
	if want := filepath.Join(wd, "..", "..", ".cache"); err != nil || got.Root != want {
		t.Errorf("in the source tree: %q, %v, want %q", got.Root, err, want)
	}
	t.Setenv("MILLRACE_CACHE", "/somewhere/else")
	if got, err := DefaultCache(); err != nil || got.Root != "/somewhere/else" {
		t.Errorf("with MILLRACE_CACHE: %q, %v", got.Root, err)
	}
}
