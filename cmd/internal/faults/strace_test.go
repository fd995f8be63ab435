package faults

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// changes are the system calls that leave something on a disk; "?" lets strace pass
// over those that the machine does not have.
var changes = []string{
	"?write", "?pwrite64", "?writev", "?pwritev", "?pwritev2", "?fsync", "?fdatasync", "?ftruncate", "?fallocate",
	"?rename", "?renameat", "?renameat2", "?link", "?linkat", "?unlink", "?unlinkat", "?rmdir", "?mkdir", "?mkdirat",
}

// point is the n-th call of one kind on one path. strace counts the calls of each
// thread apart, and which thread does what is the schedulers' business; the calls on
// one path, however, come from whoever has the file open.
type point struct {
	call string
	path string // below the root, as in shape
	n    int
}

func (p point) String() string { return fmt.Sprintf("%s %s %d", p.call, p.path, p.n) }

// partName is what ClickHouse calls a new part: partition, the number of its block
// twice, level. Pieces land beside each other, so the number is anybody's.
var partName = regexp.MustCompile(`_(\d+)_(\d+)_(\d)(/|$)`)

// shape is a path without what differs from run to run: @ for the process id, # for
// the number of a block.
func shape(path string, pid int) string {
	path = strings.ReplaceAll(path, fmt.Sprintf("/%d-", pid), "/@-")
	return partName.ReplaceAllString(path, "_#_$3$4")
}

// maxBlock is more than the blocks of any partition here.
const maxBlock = 15

// paths are what the point's may be called, for a shell in which $$ is the process id.
func (p point) paths(root string) []string {
	path := root + "/" + strings.ReplaceAll(p.path, "@", "$$")
	if !strings.Contains(path, "_#_") {
		return []string{path}
	}
	var all []string
	for n := range maxBlock {
		all = append(all, strings.Replace(path, "_#_", fmt.Sprintf("_%[1]d_%[1]d_", n+1), 1))
	}
	return all
}

// requireTracer skips the test without strace, or fails it where parts are required.
func requireTracer(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	switch {
	case err == nil:
		return path
	case os.Getenv("MILLRACE_REQUIRE_PARTS") == "1":
		t.Fatal("strace is not installed, but parts are required (Debian: apt-get install strace)")
	}
	t.Skip("NOT RUN: strace is not installed (Debian: apt-get install strace)")
	return ""
}

// traced writes a program that is bin under strace with the given options. strace
// runs as a grandchild (-D), so the program has the process id of the script, $$, and
// its parent is ours.
func traced(t *testing.T, bin, options string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(bin)+"-traced")
	script := fmt.Sprintf("#!/bin/sh\nexec %s -D -f -qq -y %s %s \"$@\"\n", requireTracer(t), options, bin)
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

// listing is bin with every change written to the file.
func listing(t *testing.T, bin, file string) string {
	t.Helper()
	return traced(t, bin, fmt.Sprintf("-o %s -e trace=%s", file, strings.Join(changes, ",")))
}

// injected is bin with something done at the point, "signal=SIGKILL" or "error=EIO";
// strace writes to the file that it did.
func injected(t *testing.T, bin, root, file string, p point, what string) string {
	t.Helper()
	return traced(t, bin, fmt.Sprintf("-o %[5]s -e trace=%[1]s -P %[2]s -e inject=%[1]s:%[3]s:when=%[4]d",
		p.call, strings.Join(p.paths(root), " -P "), what, p.n, file))
}

var (
	callLine = regexp.MustCompile(`^(\d+) +(\w+)\((.*)`)
	fdPath   = regexp.MustCompile(`^\d+<([^>]*)>`)
	namePath = regexp.MustCompile(`"([^"]*)"`)
)

// readPoints gives the points of a listing at paths below a folder of the root, in order.
func readPoints(t *testing.T, file, root, folder string, pid int) []point {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var points []point
	seen := map[point]int{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m := callLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue // an exit, a signal, or the end of a call that began above
		}
		path := callPath(m[3])
		if !strings.HasPrefix(path, filepath.Join(root, folder)+"/") {
			continue
		}
		p := point{call: m[2], path: shape(strings.TrimPrefix(path, root+"/"), pid)}
		seen[p]++
		p.n = seen[p]
		points = append(points, p)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return points
}

// callPath is the file that a call is about: that of its descriptor, or the first
// that it names.
func callPath(args string) string {
	if m := fdPath.FindStringSubmatch(args); m != nil {
		return m[1]
	}
	if m := namePath.FindStringSubmatch(args); m != nil {
		return m[1]
	}
	return ""
}
