package blob_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
)

const outsideText = "s3cret outside of the folder"

// A file, and the folder above it, that turn into links and back while they are read
// and listed: what is outside is never read and never named, and nobody waits for a
// pipe that took a file's place.
func TestDirectoryRace(t *testing.T) {
	outside := tree(t, map[string]string{"secret": outsideText, "PT1H.json": outsideText, "only-outside": outsideText})
	root := tree(t, map[string]string{"file": "good", "folder/PT1H.json": "good"})
	at := func(name string) string { return filepath.Join(root, name) }
	s := openTree(t, blob.DirectoryConfig{Path: root, Account: "a", Container: "c"})
	stop := make(chan struct{})
	var group sync.WaitGroup
	// swap puts what make made in the place of name, atomically, and back again.
	swap := func(name, other string, make func(path string) error) {
		group.Go(func() {
			if err := make(at(other)); err != nil {
				t.Error(err)
				return
			}
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := unix.Renameat2(unix.AT_FDCWD, at(name), unix.AT_FDCWD, at(other), unix.RENAME_EXCHANGE); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	swap("file", ".file", func(path string) error { return os.Symlink(filepath.Join(outside, "secret"), path) })
	swap("folder", ".folder", func(path string) error { return os.Symlink(outside, path) })
	good, refused := 0, 0
	for range 2000 {
		for _, path := range []string{"file", "folder/PT1H.json"} {
			resp, err := s.Get(t.Context(), pipeline.BlobID{Account: "a", Container: "c", Path: path}, 0, 0, "")
			if err != nil {
				refused++
				continue
			}
			data, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(data) != "good" {
				t.Fatalf("%q gives %q, %v", path, data, err)
			}
			good++
		}
	}
	for range 200 {
		_, _ = s.ListPage(t.Context(), "a", "c", "", "", "", func(path string, _ int64, _ string) {
			if strings.Contains(path, "outside") {
				t.Errorf("%q is named", path)
			}
		}, nil)
	}
	close(stop)
	group.Wait()
	if good == 0 || refused == 0 {
		t.Errorf("%d reads, %d refusals: want both", good, refused)
	}
}

// Fifty names that lead elsewhere, or would once somebody cleaned, decoded or split
// them: none is read, no folder of them listed, and no error tells what is outside.
func TestFiftyHostileNames(t *testing.T) {
	outside := tree(t, map[string]string{"secret": outsideText})
	root := tree(t, map[string]string{"good/PT1H.json": "good"})
	up := "../" + filepath.Base(outside)
	names := []string{
		"..", "../", "../..", "./..", ".", "", "/", "//", "/etc/passwd", "//etc/passwd", "etc/../../../../etc/passwd", "good/..", "good/../..", "good/../../secret",
		up + "/secret", "./" + up + "/secret", "good/../" + up + "/secret", "good/./PT1H.json/", "good//PT1H.json", "good/PT1H.json/.", "good/PT1H.json/..", "good/PT1H.json/x",
		"..\\secret", "good\\..\\..\\secret", "good\\PT1H.json", "C:\\Windows\\win.ini", "\\\\server\\share", "..%2fsecret", "%2e%2e/secret", "..%252fsecret", "%00", "good%2fPT1H.json",
		"\x00", "good\x00", "good/PT1H.json\x00", "good/PT1H.json\x00.txt", "\n", "good\n", "good/PT1H.json\n", "good/PT1H.json\r\n", "\x1b[2J", "\x7f", "\xff\xfe", "good/\xc0\xae\xc0\xae/secret",
		"～/secret", "~root/.ssh/id_rsa", "$HOME/secret", "${IFS}", "good/PT1H.json:stream", "．．/secret", "‥/secret", "good/\u202e", "CON", "/proc/self/environ", "/dev/zero", "proc/self/root/etc/passwd",
		strings.Repeat("../", 100) + "etc/passwd", strings.Repeat("a/", 3000) + "x", strings.Repeat("a", 5000),
	}
	if len(names) < 50 {
		t.Fatalf("%d names", len(names))
	}
	s := openTree(t, blob.DirectoryConfig{Path: root, Account: "a", Container: "c"}, blob.DirectoryConfig{Path: root})
	try := func(id pipeline.BlobID) {
		resp, err := s.Get(t.Context(), id, 0, 0, "")
		if err == nil {
			data, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			t.Errorf("%q gives %q", id, data)
			return
		}
		var e *blob.Error
		if !errors.As(err, &e) || strings.Contains(err.Error(), outside) || strings.Contains(err.Error(), root) {
			t.Errorf("%q: error %v", id, err)
		}
	}
	for _, name := range names {
		try(pipeline.BlobID{Account: "a", Container: "c", Path: name})
		try(pipeline.BlobID{Account: name, Container: "c", Path: "secret"})
		try(pipeline.BlobID{Account: "x", Container: name, Path: "secret"})
		_, _ = s.ListPage(t.Context(), "a", "c", name+"/", "", "", func(path string, _ int64, _ string) {
			if path != "good/PT1H.json" { // "./" is the folder itself
				t.Errorf("%q lists %q", name, path)
			}
		}, nil)
	}
	// As names of files, where the disk takes them: named or passed over, never doubled
	// into other names.
	for _, name := range slices.Compact(names) {
		if name != "" && !strings.ContainsAny(name, "/\x00") && name != "." && name != ".." && len(name) < 200 {
			if err := os.WriteFile(filepath.Join(root, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := s.ListPage(t.Context(), "a", "c", "", "", "", func(path string, _ int64, _ string) {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil || strings.ContainsAny(path, "\\\n\r\x00\x1b\x7f") {
			t.Errorf("%q is listed: %v", path, err)
		}
		if path == "good/PT1H.json" {
			return
		}
		if resp, err := s.Get(t.Context(), pipeline.BlobID{Account: "a", Container: "c", Path: path}, 0, 0, ""); err != nil {
			t.Errorf("%q is listed and cannot be read: %v", path, err)
		} else {
			resp.Body.Close()
		}
	}, nil)
	if err != nil {
		t.Error(err)
	}
}
