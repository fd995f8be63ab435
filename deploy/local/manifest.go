// Package local finds, checks and installs the real parts that a demo and the
// tests run against: the ClickHouse library, Azurite, and, for tests only, a Kafka
// broker and the official clients of other languages.
//
// What flows in: a cache folder and a purpose. What flows out: a report of what
// this machine has and lacks, and, after Ensure, paths. Every part is pinned by
// version and checksum in this package and nowhere else; a warm start reads a
// few marker files and needs no network.
//
// Installing runs one goroutine per part and waits for all of them; a lock file
// keeps two runs apart. Nothing else in the package starts a goroutine that
// outlives its call.
package local

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// Purpose says what the parts are for.
type Purpose string

// Purposes, from the smallest set of parts to the largest.
const (
	ForBuild Purpose = "build" // nothing but the Go toolchain
	ForDemo  Purpose = "demo"
	ForTest  Purpose = "test"
)

// Names of the parts.
const (
	PartClickHouse = "clickhouse"
	PartAzurite    = "azurite"
	PartPython     = "python"
)

// Environment variables that name a part of the user's own instead of ours.
const (
	EnvLibrary = "MILLRACE_LIBCHDB"
	EnvAzurite = "MILLRACE_AZURITE"
	EnvPython  = "MILLRACE_PYTHON"
)

// Part is one pinned thing to install.
type Part struct {
	Name string
	// Package and Version are what the package manager is asked for.
	Package, Version string
	// Checksum is what the download must match, like "sha512-…" in base64.
	Checksum string
	// Download and Installed are the sizes in bytes, for the report.
	Download, Installed int64
	// Env names the variable that points at the user's own copy.
	Env string
	// WayOut says what to do when it cannot be downloaded.
	WayOut string

	// tool is the program that installs it.
	tool string
	// folder is below the cache; its name changes with the content.
	folder string
	// file is what the variable points at, below folder.
	file string
	// size of file in bytes; 0 means that it is not checked.
	size    int64
	install func(*installation) error
}

// Sizes and checksums of the pinned ClickHouse library, by GOOS/GOARCH. Where
// the publisher has a package but its bytes were never checked by us, the
// checksum is empty and the part cannot be installed.
var chdbPackages = map[string]struct {
	suffix, integrity   string
	download, installed int64
}{
	"linux/amd64": {
		suffix:    "linux-x64-gnu",
		integrity: "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
		download:  177_817_999, installed: 566_330_096,
	},
	"linux/arm64":  {suffix: "linux-arm64-gnu"},
	"darwin/arm64": {suffix: "darwin-arm64"},
	"darwin/amd64": {suffix: "darwin-x64"},
}

const (
	chdbVersion    = "26.7.3-stable.1"
	azuriteVersion = "3.35.0"
)

//go:embed azurite/package.json
var azuritePackage []byte

//go:embed azurite/package-lock.json
var azuriteLock []byte

//go:embed python/requirements.txt
var pythonRequirements []byte

// Parts lists what a purpose needs on this machine, in the order of size.
func Parts(purpose Purpose) []Part {
	switch purpose {
	case ForDemo:
		return []Part{clickhousePart(), azuritePart()}
	case ForTest:
		return []Part{clickhousePart(), azuritePart(), pythonPart(), javaScriptPart(), javaPart(), kafkaPart(), kcatPart(), countriesPart()}
	case ForBuild:
	}
	return nil
}

// ParsePurpose reads a purpose from a flag.
func ParsePurpose(s string) (Purpose, error) {
	known := []Purpose{ForBuild, ForDemo, ForTest}
	if p := Purpose(s); slices.Contains(known, p) {
		return p, nil
	}
	return "", fmt.Errorf("unknown purpose %q: want one of %v", s, known)
}

func clickhousePart() Part {
	pkg := chdbPackages[runtime.GOOS+"/"+runtime.GOARCH]
	return Part{
		Name:    PartClickHouse,
		Package: "@chdb/lib-" + pkg.suffix, Version: chdbVersion, Checksum: pkg.integrity,
		Download: pkg.download, Installed: pkg.installed,
		Env:     EnvLibrary,
		WayOut:  "set MILLRACE_LIBCHDB=path to use a libchdb.so you have, or run against a server of yours with --clickhouse URL",
		tool:    toolNpm,
		folder:  "chdb-" + chdbVersion + "-" + pkg.suffix,
		file:    "libchdb.so",
		size:    pkg.installed,
		install: installPacked,
	}
}

func azuritePart() Part {
	sum := sha256.Sum256(azuriteLock)
	return Part{
		Name:    PartAzurite,
		Package: "azurite", Version: azuriteVersion,
		Checksum: "sha256:" + hex.EncodeToString(sum[:]) + " (of the lock file)",
		Download: 55_700_000, Installed: 190_000_000,
		Env:     EnvAzurite,
		WayOut:  "set MILLRACE_AZURITE=path to the dist/src/blob/main.js of an Azurite you have",
		tool:    toolNpm,
		folder:  "azurite-" + azuriteVersion + "-" + hex.EncodeToString(sum[:4]),
		file:    filepath.Join("node_modules", "azurite", "dist", "src", "blob", "main.js"),
		install: installNpm(azuritePackage, azuriteLock, azuriteTree),
	}
}

func pythonPart() Part {
	sum := sha256.Sum256(pythonRequirements)
	return Part{
		Name:    PartPython,
		Package: "azure-eventhub, clickhouse-connect", Version: "as in requirements.txt",
		Checksum: "sha256:" + hex.EncodeToString(sum[:]) + " (of the requirements)",
		Download: 10_000_000, Installed: 50_000_000,
		Env:     EnvPython,
		WayOut:  "set MILLRACE_PYTHON=path to a python that has azure-eventhub and clickhouse-connect",
		tool:    toolPython,
		folder:  "python-" + hex.EncodeToString(sum[:4]),
		file:    filepath.Join("bin", "python"),
		install: installPython,
	}
}

// Programs that install parts.
const (
	toolNpm    = "npm"
	toolPython = "python3"
	toolMaven  = "mvn"
	toolTracer = "strace"
	toolApt    = "apt-get"
)

// Cache is the folder that installed parts are kept in.
type Cache struct {
	Root string
}

// markerName is the file that says a part is complete; it holds the checksum
// that was verified.
const markerName = ".complete"

func (c Cache) dir(p Part) string    { return filepath.Join(c.Root, "parts", p.folder) }
func (c Cache) marker(p Part) string { return filepath.Join(c.dir(p), markerName) }

// Path is where the part's file is: the user's own if the part's variable is
// set, else in the cache, whether it is there yet or not.
func (c Cache) Path(p Part) string {
	if own := os.Getenv(p.Env); own != "" {
		return own
	}
	if own := p.inPath(); own != "" {
		return own
	}
	return filepath.Join(c.dir(p), p.file)
}

// Present says whether the part can be used without installing anything. It
// reads a marker and a file's size: microseconds.
//
// Errors: the part's variable names a file that cannot be used. The caller
// reports it; it is not replaced by our own part.
func (c Cache) Present(p Part) (bool, error) {
	if own := os.Getenv(p.Env); own != "" {
		info, err := os.Stat(own)
		if err != nil {
			return false, fmt.Errorf("%s: %w", p.Env, err)
		}
		if info.IsDir() {
			return false, fmt.Errorf("%s: %q is a folder, want the file", p.Env, own)
		}
		return true, nil
	}
	if p.inPath() != "" {
		return true, nil
	}
	mark, err := os.ReadFile(c.marker(p))
	if err != nil || string(mark) != p.Checksum {
		return false, nil //nolint:nilerr // A marker that cannot be read is no marker.
	}
	info, err := os.Stat(c.Path(p))
	return err == nil && (p.size == 0 || info.Size() == p.size), nil
}

// DefaultCache finds the cache folder: $MILLRACE_CACHE; else .cache of the
// source tree that the working directory or the program lies in; else a folder
// in the user's own cache.
func DefaultCache() (Cache, error) {
	if root := os.Getenv("MILLRACE_CACHE"); root != "" {
		abs, err := filepath.Abs(root)
		return Cache{Root: abs}, err
	}
	var starts []string
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	if exe, err := os.Executable(); err == nil {
		if resolved, err := filepath.EvalSymlinks(exe); err == nil {
			exe = resolved
		}
		starts = append(starts, filepath.Dir(exe))
	}
	for _, dir := range starts {
		if root, ok := sourceTree(dir); ok {
			return Cache{Root: filepath.Join(root, ".cache")}, nil
		}
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return Cache{}, fmt.Errorf("find cache folder: %w: set MILLRACE_CACHE", err)
	}
	return Cache{Root: filepath.Join(user, "millrace")}, nil
}

// sourceTree climbs from dir to the folder that holds our manifest.
func sourceTree(dir string) (string, bool) {
	for {
		if _, err := os.Stat(filepath.Join(dir, "deploy", "local", "azurite", "package-lock.json")); err == nil {
			return dir, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", false
		}
		dir = parent
	}
}
