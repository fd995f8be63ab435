package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// preflightTimeout bounds all questions together, because people wait for it.
const preflightTimeout = 880 * time.Millisecond

// askDelay is how long a program's output is waited for after its end: a busy
// machine needs more than a moment.
const askDelay = 100 * time.Millisecond

// What the local parts need at least.
const (
	minGoMinor     = 26 // Of Go 1.
	minNodeMajor   = 20 // Asked for by packages in Azurite's lock file.
	minNpmMajor    = 8  // Reads lock files of version 3 without addresses.
	minPythonMinor = 11 // Of Python 3: wheels are pinned for 3.11 to 3.14.
	maxPythonMinor = 14
	minJavaMajor   = 17

	// A demo's own data, or a test run's build cache and temporary files.
	workingDisk  = 1_500_000_000
	minMemory    = 2_000_000_000
	enoughMemory = 4_000_000_000
)

// Status is the outcome of one check.
type Status string

// Outcomes: good; worth knowing; will be downloaded; has to be mended first.
const (
	StatusOK      Status = "ok"
	StatusWarning Status = "warning"
	StatusMissing Status = "download"
	StatusFault   Status = "FAULT"
)

// Check is one line of the report.
type Check struct {
	Subject string
	Status  Status
	Found   string
	// Fix says what to do, for warnings and faults.
	Fix string
}

// Report is what a machine has and lacks for a purpose.
type Report struct {
	Purpose Purpose
	Checks  []Check
	// Missing are the parts that Ensure would install; Download and Installed
	// their sizes in bytes together.
	Missing             []Part
	Download, Installed int64
}

// Need says what a preflight is for.
type Need struct {
	Purpose Purpose
	// NoClickHouse leaves the embedded ClickHouse out: the user has a server.
	NoClickHouse bool
}

// parts lists what the need comes to on this machine.
func (n Need) parts() []Part {
	var parts []Part
	for _, p := range Parts(n.Purpose) {
		if p.Name != PartClickHouse || !n.NoClickHouse {
			parts = append(parts, p)
		}
	}
	return parts
}

// Preflight looks at the machine and the cache within one second. It finds
// every fault at once and changes nothing; the network is not asked.
func Preflight(ctx context.Context, cache Cache, need Need) Report {
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	r := Report{Purpose: need.Purpose}
	parts, partChecks := cache.checkParts(need, &r)
	asks := []func() Check{
		func() Check { return checkSystem(runtime.GOOS, runtime.GOARCH) },
		func() Check { return checkGo(ctx) },
	}
	if parts[PartClickHouse] {
		asks = append(asks, func() Check { return checkLibc(ctx, "/") })
	}
	if need.Purpose != ForBuild {
		asks = append(asks,
			func() Check { return checkNode(ctx) },
			func() Check { return checkNpm(ctx, r.installs(toolNpm)) },
			func() Check { return checkMemory() })
	}
	if need.Purpose == ForTest {
		asks = append(asks,
			func() Check { return checkPython(ctx, r.installs(toolPython)) },
			func() Check { return checkJava(ctx) },
			func() Check { return checkMaven(r.installs(toolMaven)) },
			func() Check { return checkCompiler() },
			func() Check { return checkTracer() })
	}
	asks = append(asks, func() Check { return checkDisk(cache.Root, r.Download+r.Installed+workingDisk) })

	r.Checks = make([]Check, len(asks))
	var wg sync.WaitGroup
	for i, ask := range asks {
		wg.Go(func() { r.Checks[i] = ask() })
	}
	wg.Wait()
	r.Checks = append(r.Checks, partChecks...)
	return r
}

// checkParts fills in what is missing and returns which parts are ours to run.
func (c Cache) checkParts(need Need, r *Report) (ours map[string]bool, checks []Check) {
	ours = map[string]bool{}
	for _, p := range need.parts() {
		ours[p.Name] = true
		ok, err := c.Present(p)
		check := Check{Subject: p.Name, Status: StatusOK, Found: p.Version}
		switch {
		case err != nil:
			check = Check{p.Name, StatusFault, err.Error(), "correct or unset " + p.Env}
		case ok && os.Getenv(p.Env) != "":
			check.Found = "your own: " + os.Getenv(p.Env)
		case ok:
		case p.Checksum == "":
			check = Check{
				p.Name, StatusFault,
				fmt.Sprintf("no checksum of %s@%s is known for %s/%s", p.Package, p.Version, runtime.GOOS, runtime.GOARCH), p.WayOut,
			}
		default:
			check.Status = StatusMissing
			check.Found = fmt.Sprintf("%s, about %s to download, %s on disk", p.Version, Megabytes(p.Download), Megabytes(p.Installed))
			r.Missing = append(r.Missing, p)
			r.Download += p.Download
			r.Installed += p.Installed
		}
		checks = append(checks, check)
	}
	return ours, checks
}

// installs says whether Ensure would run the tool.
func (r *Report) installs(tool string) bool {
	return slices.ContainsFunc(r.Missing, func(p Part) bool { return p.tool == tool })
}

// Faults are the checks that have to be mended before anything can start.
func (r Report) Faults() []Check {
	var faults []Check
	for _, c := range r.Checks {
		if c.Status == StatusFault {
			faults = append(faults, c)
		}
	}
	return faults
}

// Err is nil without faults; else it names all of them with their fixes.
func (r Report) Err() error {
	var errs []error
	for _, c := range r.Faults() {
		errs = append(errs, fmt.Errorf("%s: %s: %s", c.Subject, c.Found, c.Fix))
	}
	return errors.Join(errs...)
}

// Write prints the report for people.
func (r Report) Write(w io.Writer) {
	for _, c := range r.Checks {
		fmt.Fprintf(w, "  %-8s  %-10s  %s\n", c.Status, c.Subject, c.Found)
		if c.Fix != "" {
			fmt.Fprintf(w, "  %-8s  %-10s  fix: %s\n", "", "", c.Fix)
		}
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(w, "  to download: about %s, %s on disk, once\n", Megabytes(r.Download), Megabytes(r.Installed))
	}
}

func checkSystem(goos, goarch string) Check {
	c := Check{Subject: "system", Status: StatusOK, Found: goos + "/" + goarch}
	switch goos + "/" + goarch {
	case "linux/amd64":
	case "linux/arm64", "darwin/arm64", "darwin/amd64":
		c.Status, c.Fix = StatusWarning, "works in principle, not tested on this kind of machine"
	default:
		c.Status, c.Fix = StatusFault, "use Linux on x86-64, or run the pipeline against servers of your own"
	}
	return c
}

// checkLibc tells glibc from musl, for which no ClickHouse library exists.
func checkLibc(ctx context.Context, root string) Check {
	c := Check{Subject: "libc", Status: StatusOK, Found: "not asked on " + runtime.GOOS}
	if runtime.GOOS != "linux" {
		return c
	}
	if out, err := ask(ctx, "getconf", "GNU_LIBC_VERSION"); err == nil && strings.HasPrefix(out, "glibc") {
		c.Found = strings.TrimSpace(out)
		return c
	}
	if musl, _ := filepath.Glob(filepath.Join(root, "lib", "ld-musl-*")); len(musl) > 0 {
		c.Status, c.Found = StatusFault, "musl"
		c.Fix = "the ClickHouse library needs glibc: use a Debian-like system, or --clickhouse URL"
		return c
	}
	c.Status, c.Found, c.Fix = StatusWarning, "unknown", "the ClickHouse library needs glibc"
	return c
}

func checkGo(ctx context.Context) Check {
	// `go version` would do, but it may fetch a toolchain; this never does.
	out, err := ask(ctx, "go", "env", "GOVERSION")
	major, minor, ok := version(out)
	c := Check{Subject: "go", Status: StatusOK, Found: out}
	switch fix := fmt.Sprintf("install Go 1.%d or newer", minGoMinor); {
	case err != nil:
		c.Status, c.Found, c.Fix = StatusWarning, notFound(err), fix+" to build; a built program runs without it"
	case !ok || major == 1 && minor < minGoMinor:
		c.Status, c.Fix = StatusFault, fix
	}
	return c
}

func checkNode(ctx context.Context) Check {
	return checkTool(ctx, tool{subject: "node", minMajor: minNodeMajor, fix: "install Node.js 20 or newer: Azurite runs on it"})
}

// checkNpm is a fault only when there is something to install with it.
func checkNpm(ctx context.Context, needed bool) Check {
	c := checkTool(ctx, tool{subject: "npm", minMajor: minNpmMajor, fix: "install npm 8 or newer: it downloads the parts"})
	if c.Status == StatusFault && !needed {
		c.Status = StatusWarning
	}
	return c
}

type tool struct {
	subject  string
	minMajor int
	fix      string
}

func checkTool(ctx context.Context, t tool) Check {
	c := Check{Subject: t.subject, Status: StatusOK}
	out, err := ask(ctx, t.subject, "--version")
	c.Found = out
	major, _, ok := version(out)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		c.Status, c.Found, c.Fix = StatusWarning, "did not answer in time", "try again if the next step fails"
	case err != nil:
		c.Status, c.Found, c.Fix = StatusFault, notFound(err), t.fix
	case !ok || major < t.minMajor:
		c.Status, c.Fix = StatusFault, t.fix
	}
	return c
}

// checkPython also wants the module that makes environments, which Debian
// ships apart; all of that only while the environment is not made yet.
func checkPython(ctx context.Context, needed bool) Check {
	c := Check{Subject: "python", Status: StatusOK}
	fix := fmt.Sprintf("install Python 3.%d to 3.%d with venv (Debian: apt-get install python3-venv), or set %s", minPythonMinor, maxPythonMinor, EnvPython)
	if own := os.Getenv(EnvPython); own != "" {
		c.Found = "your own: " + own
		return c
	}
	if !needed {
		c.Found = "its environment is installed"
		return c
	}
	out, err := ask(ctx, "python3", "-c", "import ensurepip, venv, sys; print('%d.%d' % sys.version_info[:2])")
	c.Found = out
	major, minor, ok := version(out)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		c.Status, c.Found, c.Fix = StatusWarning, "did not answer in time", "try again if the next step fails"
	case err != nil:
		c.Status, c.Found, c.Fix = StatusFault, notFound(err)+", or without the modules venv and ensurepip", fix
	case !ok || major != 3 || minor < minPythonMinor || minor > maxPythonMinor:
		c.Status, c.Fix = StatusFault, fix
	}
	return c
}

// checkJava wants the compiler too: the tests bring Java sources.
func checkJava(ctx context.Context) Check {
	fix := fmt.Sprintf("install a JDK %d or newer (Debian: apt-get install default-jdk-headless): tests run Java programs", minJavaMajor)
	c := checkTool(ctx, tool{subject: "java", minMajor: minJavaMajor, fix: fix})
	if _, err := exec.LookPath("javac"); err != nil && c.Status == StatusOK {
		c.Status, c.Found, c.Fix = StatusFault, c.Found+", but no javac", fix
	}
	return c
}

// checkMaven does not ask for the version: Maven takes half a second to tell it,
// and every version that runs on a Java of today will do.
func checkMaven(needed bool) Check {
	c := Check{Subject: "maven", Status: StatusOK}
	path, err := exec.LookPath(toolMaven)
	if c.Found = path; err != nil {
		c.Status, c.Found, c.Fix = StatusFault, "not found", "install Maven (Debian: apt-get install maven): it downloads Java parts"
		if !needed {
			c.Status = StatusWarning
		}
	}
	return c
}

// checkCompiler looks for what the race detector links with.
func checkCompiler() Check {
	for _, name := range []string{os.Getenv("CC"), "gcc", "clang"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return Check{Subject: "compiler", Status: StatusOK, Found: path}
		}
	}
	return Check{"compiler", StatusFault, "neither gcc nor clang", "install one (Debian: apt-get install gcc libc6-dev): the race detector needs it"}
}

// checkTracer looks for what kills a process at a given system call.
func checkTracer() Check {
	if runtime.GOOS != "linux" {
		return Check{Subject: toolTracer, Status: StatusOK, Found: "not asked on " + runtime.GOOS}
	}
	path, err := exec.LookPath(toolTracer)
	if err != nil {
		return Check{toolTracer, StatusFault, "not found", "install it (Debian: apt-get install strace): tests kill programs at each of their system calls"}
	}
	return Check{Subject: toolTracer, Status: StatusOK, Found: path}
}

func checkDisk(dir string, need int64) Check {
	c := Check{Subject: "disk", Status: StatusOK}
	for dir != filepath.Dir(dir) { // The cache may not exist yet.
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	free, err := freeBytes(dir)
	if err != nil {
		return Check{c.Subject, StatusWarning, "unknown: " + err.Error(), Megabytes(need) + " are needed"}
	}
	c.Found = fmt.Sprintf("%s free, %s needed", Megabytes(int64(free)), Megabytes(need))
	if int64(free) < need {
		c.Status, c.Fix = StatusFault, "make room, or set MILLRACE_CACHE to a folder elsewhere"
	}
	return c
}

func checkMemory() Check {
	available, err := availableMemory("/")
	if err != nil {
		return Check{"memory", StatusWarning, "unknown", "2 GB are needed, 4 GB are comfortable"}
	}
	c := Check{Subject: "memory", Status: StatusOK, Found: Megabytes(available) + " available"}
	switch {
	case available < minMemory:
		c.Status, c.Fix = StatusFault, "free some: 2 GB are needed"
	case available < enoughMemory:
		c.Status, c.Fix = StatusWarning, "4 GB are comfortable"
	}
	return c
}

// availableMemory is what the kernel would give us, and no more than the
// control group we run in may use.
func availableMemory(root string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(root, "proc", "meminfo"))
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^MemAvailable:\s+(\d+) kB$`).FindSubmatch(text)
	if m == nil {
		return 0, errors.New("no MemAvailable in /proc/meminfo")
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		return 0, err
	}
	available := kib << 10
	group := filepath.Join(root, "sys", "fs", "cgroup")
	if limit, ok := readNumber(filepath.Join(group, "memory.max")); ok {
		used, _ := readNumber(filepath.Join(group, "memory.current"))
		available = min(available, limit-used)
	}
	return available, nil
}

// readNumber is false for a file that is absent or says "max".
func readNumber(path string) (int64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}

// ask runs a program and returns its first line.
func ask(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = askDelay
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if errors.Is(err, exec.ErrWaitDelay) && len(out) > 0 {
		err = nil // It ended well; a busy machine was slow to say so.
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, err
}

var versionPattern = regexp.MustCompile(`(\d+)(?:\.(\d+))?`)

// version reads the first number in a text; the first release of a Java has no
// minor one.
func version(s string) (major, minor int, ok bool) {
	m := versionPattern.FindStringSubmatch(s)
	if m == nil {
		return 0, 0, false
	}
	major, err := strconv.Atoi(m[1])
	if err == nil && m[2] != "" {
		minor, err = strconv.Atoi(m[2])
	}
	return major, minor, err == nil
}

func notFound(err error) string {
	if errors.Is(err, exec.ErrNotFound) {
		return "not found"
	}
	return "does not run: " + err.Error()
}
