package local

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// npmFlags keep npm short: it is used as the user configured it, but a
// registry that cannot be reached must be reported in seconds, not in minutes.
var npmFlags = []string{"--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000"}

// installPacked downloads the npm package that carries the part's one file,
// checks the archive against our own checksum and unpacks the one file.
func installPacked(in *installation) error {
	spec := in.part.Package + "@" + in.part.Version
	watch := &npmDownload{dir: in.work, tmp: npmTemporary(in.ctx), since: time.Now()}
	args := append([]string{"pack", spec, "--pack-destination=" + in.work}, npmFlags...)
	if err := in.run("download", in.work, in.part.Download, watch.size, "npm", args...); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(in.work, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return fmt.Errorf("npm pack left %d archives, want 1", len(archives))
	}
	return in.unpack(archives[0])
}

// unpack writes the part's file out of an npm archive. The file counts only if
// the whole archive has the pinned checksum.
func (in *installation) unpack(archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha512.New()
	unzip, err := gzip.NewReader(io.TeeReader(f, sum))
	if err != nil {
		return in.mismatch(f, sum, err)
	}
	err = in.extract(tar.NewReader(unzip))
	// The checksum speaks first: a damaged archive is a damaged archive,
	// whatever it made the reader say.
	if bad := in.mismatch(f, sum, nil); bad != nil {
		return bad
	}
	return err
}

// mismatch reads the rest of the archive and compares its checksum.
func (in *installation) mismatch(f io.Reader, sum hash.Hash, cause error) error {
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	got := "sha512-" + base64.StdEncoding.EncodeToString(sum.Sum(nil))
	if got != in.part.Checksum {
		return fmt.Errorf("the download has the checksum %s, which is not the pinned one", got)
	}
	return cause
}

func (in *installation) extract(archive *tar.Reader) error {
	for {
		entry, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the archive holds no %s", in.part.file)
		}
		if err != nil {
			return err
		}
		if entry.Name == "package/"+in.part.file {
			return in.writeFile(archive)
		}
	}
}

// writeFile stops at the size we pinned, whatever the archive claims.
func (in *installation) writeFile(r io.Reader) error {
	f, err := os.OpenFile(filepath.Join(in.out, in.part.file), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	counted := &countingReader{r: io.LimitReader(r, in.part.size+1), tell: func(n int64) { in.update("unpack", n, in.part.size) }}
	n, err := io.Copy(f, counted)
	if err == nil && n != in.part.size {
		err = fmt.Errorf("%s has %d bytes or more, want %d", in.part.file, n, in.part.size)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// countingReader tells how far it is about every 4 MiB.
type countingReader struct {
	r            io.Reader
	tell         func(int64)
	read, toldAt int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.read += int64(n)
	if c.read-c.toldAt >= 4<<20 {
		c.toldAt = c.read
		c.tell(c.read)
	}
	return n, err
}

// npmTemporary is where npm keeps a download while it lasts, or "".
func npmTemporary(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "npm", "config", "get", "cache").Output()
	if err != nil {
		return ""
	}
	return filepath.Join(strings.TrimSpace(string(out)), "_cacache", "tmp")
}

// npmDownload measures a running "npm pack": npm first fills a file in its own
// cache and writes the archive at the end.
type npmDownload struct {
	dir, tmp string
	since    time.Time
	seen     int64 // The most so far: a file in npm's cache is moved when it is whole.
}

func (d *npmDownload) size() int64 {
	d.seen = max(d.seen, treeSize(d.dir))
	entries, err := os.ReadDir(d.tmp)
	if d.tmp == "" || err != nil {
		return d.seen
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() && info.ModTime().After(d.since) {
			d.seen = max(d.seen, info.Size())
		}
	}
	return d.seen
}

// azuriteTree is what its files add up to; they take more on disk, being small.
const azuriteTree = 131_000_000

// installNpm makes an installer of what a committed lock file says; npm checks each
// package against the checksum in it. No package may run code of its own. tree is
// what the files add up to, in bytes.
func installNpm(pkg, lockFile []byte, tree int64) func(*installation) error {
	return func(in *installation) error {
		for name, text := range map[string][]byte{"package.json": pkg, "package-lock.json": lockFile} {
			if err := os.WriteFile(filepath.Join(in.out, name), text, 0o644); err != nil {
				return err
			}
		}
		args := append([]string{"ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"}, npmFlags...)
		return in.run("install", in.out, tree, func() int64 { return treeSize(in.out) }, "npm", args...)
	}
}

// installPython makes a virtual environment in its last place, because its
// scripts hold their own path.
func installPython(in *installation) error {
	in.out = in.final
	if err := os.MkdirAll(in.work, 0o755); err != nil {
		return err
	}
	requirements := filepath.Join(in.work, "requirements.txt")
	if err := os.WriteFile(requirements, pythonRequirements, 0o644); err != nil {
		return err
	}
	measure := func() int64 { return treeSize(in.out) }
	total := in.part.Installed
	if err := in.run("prepare", in.work, total, measure, "python3", "-m", "venv", "--clear", in.out); err != nil {
		return err
	}
	python := filepath.Join(in.out, in.part.file)
	return in.run("install", in.work, total, measure, python, "-m", "pip", "install", "--quiet", "--no-input",
		"--disable-pip-version-check", "--only-binary=:all:", "--require-hashes", "--retries=1", "--requirement", requirements)
}
