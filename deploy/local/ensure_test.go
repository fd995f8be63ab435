package local

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet is a Progress that remembers notes and ends.
type quiet struct {
	mu    sync.Mutex
	notes []string
	ends  map[string]error
}

func (q *quiet) Update(string, string, int64, int64) {}

func (q *quiet) End(part string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ends == nil {
		q.ends = map[string]error{}
	}
	q.ends[part] = err
}

func (q *quiet) Note(text string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.notes = append(q.notes, text)
}

// archive is an npm package with one file.
func archive(t *testing.T, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	out := tar.NewWriter(zip)
	header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}
	if err := errors.Join(out.WriteHeader(header), write(out, content), out.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(w *tar.Writer, s string) error {
	_, err := w.Write([]byte(s))
	return err
}

// fakePart is a part like the ClickHouse library, only smaller.
func fakePart(packed []byte, size int) Part {
	sum := sha512.Sum512(packed)
	return Part{
		Name: "thing", Package: "@scope/thing", Version: "1.2.3",
		Checksum: "sha512-" + base64.StdEncoding.EncodeToString(sum[:]),
		Env:      "MILLRACE_TEST_THING", WayOut: "bring your own thing",
		folder: "thing-1.2.3", file: "libchdb.so", size: int64(size),
		install: installPacked,
	}
}

// fakeNpm puts an npm in PATH that hands out the archive and counts its calls
// in the file it returns.
func fakeNpm(t *testing.T, packed []byte, extra string) (calls string) {
	t.Helper()
	bin := t.TempDir()
	calls = filepath.Join(bin, "calls")
	source := filepath.Join(bin, "source.tgz")
	script := fmt.Sprintf(`#!/bin/sh
if [ "$1" = config ]; then echo %[1]s; exit 0; fi
echo "$@" >> %[2]s
%[3]s
for a in "$@"; do case "$a" in --pack-destination=*) cp %[4]s "${a#--pack-destination=}/thing.tgz";; esac; done
`, bin, calls, extra, source)
	for name, text := range map[string][]byte{"source.tgz": packed, "npm": []byte(script)} {
		if err := os.WriteFile(filepath.Join(bin, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	return calls
}

func TestEnsureInstallsOnceAndThenNeedsNothing(t *testing.T) {
	packed := archive(t, "package/libchdb.so", "a library")
	calls := fakeNpm(t, packed, "")
	cache, part := Cache{Root: t.TempDir()}, fakePart(packed, len("a library"))
	for range 2 {
		if err := Ensure(t.Context(), cache, []Part{part}, &quiet{}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(cache.Path(part))
	if err != nil || string(got) != "a library" {
		t.Errorf("installed file: %q, %v", got, err)
	}
	text, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n != 1 {
		t.Errorf("npm ran %d times, want 1: %s", n, text)
	}
	if !strings.HasPrefix(string(text), "pack @scope/thing@1.2.3 ") {
		t.Errorf("npm was called with %q", text)
	}
	// Without any tool a warm start still works.
	t.Setenv("PATH", t.TempDir())
	if err := Ensure(t.Context(), cache, []Part{part}, &quiet{}); err != nil {
		t.Errorf("warm start: %v", err)
	}
	if _, err := os.Stat(filepath.Join(cache.Root, "tmp")); !os.IsNotExist(err) {
		t.Errorf("temporary files are left: %v", err)
	}
}

func TestEnsureRefusesWhatIsNotPinned(t *testing.T) {
	good := archive(t, "package/libchdb.so", "a library")
	tests := []struct {
		name   string
		packed []byte
		size   int
		pinned []byte
		want   string
	}{
		{"other bytes", archive(t, "package/libchdb.so", "a trojan"), 9, good, "not the pinned one"},
		{"cut short", good[:len(good)-7], 9, good, "not the pinned one"},
		{"not an archive", []byte("<html>proxy login</html>"), 9, good, "not the pinned one"},
		{"empty", nil, 9, good, "not the pinned one"},
		{"file absent", archive(t, "package/other.so", "x"), 1, nil, "holds no libchdb.so"},
		{"too small", good, 10, nil, "want 10"},
		{"too large", good, 8, nil, "want 8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fakeNpm(t, tt.packed, "")
			pinned := tt.pinned
			if pinned == nil {
				pinned = tt.packed
			}
			cache, part := Cache{Root: t.TempDir()}, fakePart(pinned, tt.size)
			err := Ensure(t.Context(), cache, []Part{part}, &quiet{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Ensure: %v, want an error with %q", err, tt.want)
			}
			if _, err := os.Stat(cache.dir(part)); !os.IsNotExist(err) {
				t.Errorf("the part's folder exists after a refusal: %v", err)
			}
		})
	}
}

func TestUnreachableRegistryIsExplained(t *testing.T) {
	fakeNpm(t, nil, "echo 'npm error code ENOTFOUND'; exit 1")
	cache, part := Cache{Root: t.TempDir()}, clickhousePart()
	if part.Checksum == "" {
		t.Skip("no ClickHouse library is pinned for this kind of machine")
	}
	t.Setenv(part.Env, "")
	err := Ensure(t.Context(), cache, []Part{part}, &quiet{})
	if err == nil {
		t.Fatal("it succeeded")
	}
	for _, want := range []string{
		"ENOTFOUND", part.Package, part.Version, part.Checksum, "MILLRACE_LIBCHDB=path", "--clickhouse URL",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %q:\n%v", want, err)
		}
	}
	var install *InstallError
	if !errors.As(err, &install) || install.Part.Name != PartClickHouse {
		t.Errorf("the error is no InstallError of the part: %v", err)
	}
}

func TestUnpinnedMachineDownloadsNothing(t *testing.T) {
	calls := fakeNpm(t, nil, "")
	part := fakePart(nil, 0)
	part.Checksum = ""
	err := Ensure(t.Context(), Cache{Root: t.TempDir()}, []Part{part}, &quiet{})
	if err == nil || !strings.Contains(err.Error(), "no checksum") {
		t.Errorf("Ensure: %v", err)
	}
	if _, err := os.Stat(calls); !os.IsNotExist(err) {
		t.Error("npm was called for a part without a checksum")
	}
}

func TestTwoRunsInstallOnce(t *testing.T) {
	packed := archive(t, "package/libchdb.so", "a library")
	calls := fakeNpm(t, packed, "sleep 0.3")
	cache, part := Cache{Root: t.TempDir()}, fakePart(packed, len("a library"))
	var wg sync.WaitGroup
	faults := make([]error, 3)
	for i := range faults {
		wg.Go(func() { faults[i] = Ensure(t.Context(), cache, []Part{part}, &quiet{}) })
	}
	wg.Wait()
	if err := errors.Join(faults...); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(calls)
	if err != nil || strings.Count(string(text), "\n") != 1 {
		t.Errorf("npm ran %d times, want 1 (%v)", strings.Count(string(text), "\n"), err)
	}
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	told := 0
	if _, err := lock(ctx, path, func() { told++ }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second lock: %v, want a deadline", err)
	}
	if told != 1 {
		t.Errorf("the wait was told %d times, want 1", told)
	}
}

func TestOwnPartIsTakenAsItIs(t *testing.T) {
	own := filepath.Join(t.TempDir(), "mine.so")
	part, cache := fakePart(nil, 9), Cache{Root: t.TempDir()}
	t.Setenv(part.Env, own)
	if _, err := cache.Present(part); err == nil || !strings.Contains(err.Error(), part.Env) {
		t.Errorf("a missing part of one's own: %v, want an error that names %s", err, part.Env)
	}
	if err := os.WriteFile(own, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if ok, err := cache.Present(part); !ok || err != nil {
		t.Errorf("present: %t, %v", ok, err)
	}
	if got := cache.Path(part); got != own {
		t.Errorf("path %q, want %q", got, own)
	}
}

func TestDamagedPartIsMissing(t *testing.T) {
	packed := archive(t, "package/libchdb.so", "a library")
	fakeNpm(t, packed, "")
	cache, part := Cache{Root: t.TempDir()}, fakePart(packed, len("a library"))
	if err := Ensure(t.Context(), cache, []Part{part}, &quiet{}); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"file cut short":   func() error { return os.Truncate(cache.Path(part), 3) },
		"file gone":        func() error { return os.Remove(cache.Path(part)) },
		"marker of before": func() error { return os.WriteFile(cache.marker(part), []byte("sha512-old"), 0o644) },
		"marker gone":      func() error { return os.Remove(cache.marker(part)) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if ok, err := cache.Present(part); ok || err != nil {
			t.Errorf("%s: present %t, %v, want missing", name, ok, err)
		}
		if err := Ensure(t.Context(), cache, []Part{part}, &quiet{}); err != nil {
			t.Errorf("%s: mending: %v", name, err)
		}
	}
}

// TestLockFilesNameNoRegistry: packages come from wherever the user's npm is
// configured to look; only their checksums are ours.
func TestLockFilesNameNoRegistry(t *testing.T) {
	for _, tt := range []struct {
		name          string
		pkg, lockFile []byte
		pin           string
		withAChecksum int
	}{
		{"azurite", azuritePackage, azuriteLock, `"azurite": "` + azuriteVersion + `"`, 374},
		{"javascript", javaScriptPackage, javaScriptLock, `"@azure/event-hubs": "` + javaScriptVersion + `"`, 55},
	} {
		if bytes.Contains(tt.lockFile, []byte(`"resolved"`)) {
			t.Errorf("%s: package-lock.json holds addresses: make it with npm's omit-lockfile-registry-resolved=true", tt.name)
		}
		if got := bytes.Count(tt.lockFile, []byte(`"integrity"`)); got != tt.withAChecksum {
			t.Errorf("%s: %d of the packages have a checksum, want %d", tt.name, got, tt.withAChecksum)
		}
		if !bytes.Contains(tt.pkg, []byte(tt.pin)) {
			t.Errorf("%s: package.json does not pin %s", tt.name, tt.pin)
		}
	}
	for _, line := range strings.Split(string(pythonRequirements), "\n") {
		if strings.Contains(line, "==") && !strings.HasSuffix(line, `\`) {
			t.Errorf("requirement without a checksum: %s", line)
		}
	}
}
