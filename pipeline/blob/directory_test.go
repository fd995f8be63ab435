package blob_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
)

// tree writes files below a new folder.
func tree(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func openTree(t *testing.T, configs ...blob.DirectoryConfig) *blob.DirectoryStore {
	t.Helper()
	s, err := blob.NewDirectoryStore(configs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func walked(t *testing.T, s *blob.DirectoryStore) (names []string) {
	t.Helper()
	if err := s.Walk(t.Context(), func(id pipeline.BlobID, size int64, _ string) {
		names = append(names, fmt.Sprintf("%s %d", id, size))
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

// Names of files are names of blobs: of the whole tree, and of one container.
func TestDirectoryNames(t *testing.T) {
	root := tree(t, map[string]string{"acc/logs/a/PT1H.json": "1234", "acc/logs/b": "1", "acc/more/x": "12", "acc/stray": "", "stray": ""})
	one := tree(t, map[string]string{"a/PT1H.json": "123"})
	s := openTree(t, blob.DirectoryConfig{Path: root}, blob.DirectoryConfig{Path: one, Account: "acc", Container: "logs"})
	if diff := cmp.Diff([]string{"acc/logs/a/PT1H.json 3", "acc/more/x 2"}, walked(t, s)); diff != "" {
		t.Errorf("a container with a folder of its own comes from there: %s", diff)
	}
	if diff := cmp.Diff(map[string]int{blob.SkippedPlace: 2}, s.Skipped()); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		offset, count int64
		want          string
		kind          blob.Kind
	}{{0, 0, "123", 0}, {1, 1, "2", 0}, {2, 9, "3", 0}, {3, 0, "", blob.KindOutOfRange}} {
		resp, err := s.Get(t.Context(), pipeline.BlobID{Account: "acc", Container: "logs", Path: "a/PT1H.json"}, c.offset, c.count, "")
		var e *blob.Error
		if c.want == "" {
			if !errors.As(err, &e) || e.Kind != c.kind {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(resp.Body)
		if string(data) != c.want || resp.Total != 3 || resp.Offset != c.offset || resp.Length != int64(len(c.want)) {
			t.Errorf("%+v: %q, %+v", c, data, resp)
		}
		resp.Body.Close()
		if _, err := s.Get(t.Context(), pipeline.BlobID{Account: "acc", Container: "logs", Path: "a/PT1H.json"}, 0, 0, `"0-0"`); !errors.As(err, &e) || e.Kind != blob.KindChanged {
			t.Errorf("another version: %v", err)
		}
	}
}

// Nothing that is no regular file below the folder is ever read or named.
func TestDirectoryKeepsToItsFiles(t *testing.T) {
	outside := tree(t, map[string]string{"secret": "s3cret", "deep/secret": "s3cret"})
	root := tree(t, map[string]string{"good/PT1H.json": "good", "swap/PT1H.json": "good", "bad\nname": "x", "back\\slash": "x", "PT1H.json.gz": "x"})
	at := func(name string) string { return filepath.Join(root, name) }
	listener, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, err := range []error{
		os.Symlink(filepath.Join(outside, "secret"), at("link")), os.Symlink(outside, at("folder")), os.Symlink("good/PT1H.json", at("inside")),
		os.Symlink(".", at("loop")), unix.Mkfifo(at("pipe"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := openTree(t, blob.DirectoryConfig{Path: root, Account: "a", Container: "c"})
	if diff := cmp.Diff([]string{"a/c/good/PT1H.json 4", "a/c/swap/PT1H.json 4"}, walked(t, s)); diff != "" {
		t.Error(diff)
	}
	walked(t, s) // counts nothing twice
	if diff := cmp.Diff(map[string]int{blob.SkippedLink: 4, blob.SkippedSpecial: 2, blob.SkippedName: 2, blob.SkippedGzip: 1}, s.Skipped()); diff != "" {
		t.Error(diff)
	}
	if err := errors.Join(os.Remove(at("swap/PT1H.json")), os.Symlink(filepath.Join(outside, "secret"), at("swap/PT1H.json"))); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"link", "folder/secret", "folder/deep/secret", "inside", "pipe", "socket", "swap/PT1H.json", "good", ".", "",
		"../" + filepath.Base(outside) + "/secret", "good/../../x", "/etc/passwd", "good//PT1H.json", "good/PT1H.json/", "a\x00b", "bad\nname",
	} {
		resp, err := s.Get(t.Context(), pipeline.BlobID{Account: "a", Container: "c", Path: path}, 0, 0, "")
		if err == nil {
			data, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			t.Errorf("%q gives %q", path, data)
		}
		var e *blob.Error
		if !errors.As(err, &e) || strings.Contains(err.Error(), outside) || strings.Contains(err.Error(), root) {
			t.Errorf("%q: error %v", path, err)
		}
	}
	if _, err := s.Get(t.Context(), pipeline.BlobID{Account: "a", Container: "c", Path: "nobody"}, 0, 0, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, prefix := range []string{"../", "folder/", "good", "a/../../"} {
		if _, err := s.ListPage(t.Context(), "a", "c", prefix, "", "", func(path string, _ int64, _ string) { t.Errorf("%q names %q", prefix, path) }, nil); err == nil {
			t.Errorf("prefix %q is listed", prefix)
		}
	}
}

func TestDirectoryConfigurations(t *testing.T) {
	root := t.TempDir()
	_, err := blob.NewDirectoryStore([]blob.DirectoryConfig{
		{Path: root},
		{Path: root},
		{Path: root, Account: "a"},
		{Path: root, Account: "a", Container: "c"},
		{Path: root, Account: "a", Container: "c"},
		{Path: root, Account: "a/b", Container: "c"},
		{Path: root + "/missing"},
	})
	for _, want := range []string{"second one whose folders name", `container "": want two names`, "another one for account", `account "a/b"`, "missing: no such file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

// A file that grows in place is read as a blob is: only the new bytes, each once.
func TestDirectoryGrowingFile(t *testing.T) {
	root := tree(t, map[string]string{"PT1H.json": `{"records":[{"a":1}]}`})
	s := openTree(t, blob.DirectoryConfig{Path: root, Account: "a", Container: "c"})
	r, err := blob.New(blob.DefaultConfig(decode.SplitRecords), s)
	if err != nil {
		t.Fatal(err)
	}
	id, pos := pipeline.BlobID{Account: "a", Container: "c", Path: "PT1H.json"}, blob.Position{}
	var got []string
	read := func() blob.Outcome {
		t.Helper()
		out, err := r.ReadNew(t.Context(), id, pos, -1, semaphore.NewWeighted(1<<30), func(c blob.Chunk) error {
			got = append(got, string(c.Data))
			pos.End, pos.Tail = c.End(), slices.Clone(c.Tail)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	read()
	f, err := os.OpenFile(filepath.Join(root, "PT1H.json"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, text := range []string{`,{"a":2}`, `,{"a":3},{"a":`, `4}]}`} {
		if _, err := f.WriteAt([]byte(text), pos.End); err != nil {
			t.Fatal(err)
		}
		if i == 2 { // the writer goes on behind what it left half done
			if _, err := f.WriteAt([]byte(`,{"a":4}]}`), pos.End); err != nil {
				t.Fatal(err)
			}
		}
		read()
	}
	if diff := cmp.Diff([]string{`{"a":1}`, `,{"a":2}`, `,{"a":3}`, `,{"a":4}`}, got); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(filepath.Join(root, "PT1H.json"), []byte(`{"records":[{"b":1}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := read(); out != blob.Rewritten {
		t.Errorf("a file that was written anew: %v", out)
	}
}
