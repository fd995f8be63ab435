package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// measureInterval is how often progress is looked at.
	measureInterval = 200 * time.Millisecond
	// outputLimit bounds how much of an installer's text an error quotes.
	outputLimit = 300
	killDelay   = 2 * time.Second
)

// Progress hears what an installation does. Calls come from one goroutine per
// part, at the same time.
type Progress interface {
	// Update says how many of total bytes a phase of a part has done.
	Update(part, phase string, done, total int64)
	// End says that a part is installed (err nil) or is not.
	End(part string, err error)
	// Note is a line for the user.
	Note(text string)
}

// InstallError says which part could not be installed, and the ways out.
type InstallError struct {
	Part Part
	Err  error
}

func (e *InstallError) Unwrap() error { return e.Err }

func (e *InstallError) Error() string {
	return fmt.Sprintf("install %s: %v\n  package:  %s\n  version:  %s\n  checksum: %s\n  instead:  %s",
		e.Part.Name, e.Err, e.Part.Package, e.Part.Version, e.Part.Checksum, e.Part.WayOut)
}

// Ensure installs the parts that are not there yet. With all of them there it
// costs less than a millisecond and touches no network.
//
// Each part is built in a temporary folder, checked against its pinned
// checksum and then renamed, so a killed run leaves nothing half done. Another
// run that installs at the same time is waited for.
//
// Errors: one InstallError per part that failed, joined; a user's own part
// that cannot be used.
func Ensure(ctx context.Context, cache Cache, parts []Part, progress Progress) error {
	missing, err := cache.missingOf(parts)
	if err != nil || len(missing) == 0 {
		return err
	}
	unlock, err := lock(ctx, filepath.Join(cache.Root, "lock"), func() {
		progress.Note("another run is installing parts: waiting for it")
	})
	if err != nil {
		return err
	}
	defer unlock()
	// The other run may have done the work meanwhile.
	if missing, err = cache.missingOf(parts); err != nil || len(missing) == 0 {
		return err
	}
	tmp := filepath.Join(cache.Root, "tmp")
	// We hold the lock, so whatever is here was left by a killed run.
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("clean %q: %w", tmp, err)
	}
	defer os.RemoveAll(tmp)
	return installAll(ctx, cache, missing, tmp, progress)
}

func (c Cache) missingOf(parts []Part) (missing []Part, err error) {
	var faults []error
	for _, p := range parts {
		ok, err := c.Present(p)
		if err != nil {
			faults = append(faults, err)
		} else if !ok {
			missing = append(missing, p)
		}
	}
	return missing, errors.Join(faults...)
}

func installAll(ctx context.Context, cache Cache, parts []Part, tmp string, progress Progress) error {
	faults := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, p := range parts {
		wg.Go(func() {
			err := installOne(ctx, cache, p, filepath.Join(tmp, p.Name), progress)
			if err != nil {
				faults[i] = &InstallError{Part: p, Err: err}
			}
			progress.End(p.Name, err)
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

// installOne builds the part, marks it complete and puts it in its place.
func installOne(ctx context.Context, cache Cache, p Part, tmp string, progress Progress) error {
	if p.Checksum == "" {
		return fmt.Errorf("no checksum of this part is known for this kind of machine, so it is not downloaded")
	}
	in := &installation{ctx: ctx, part: p, work: tmp, out: filepath.Join(tmp, "out"), progress: progress}
	final := cache.dir(p)
	for _, dir := range []string{in.out, filepath.Dir(final)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(final); err != nil { // An incomplete one of an earlier version.
		return err
	}
	in.final = final
	if err := p.install(in); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(in.out, p.file)); err != nil {
		return fmt.Errorf("the package does not hold what is needed: %w", err)
	}
	if err := writeMarker(filepath.Join(in.out, markerName), p.Checksum); err != nil {
		return err
	}
	if in.out == final {
		return nil
	}
	return os.Rename(in.out, final)
}

// writeMarker goes through a temporary file: a marker is whole or absent.
func writeMarker(path, checksum string) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(checksum), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// installation is one run of a part's installer.
type installation struct {
	ctx  context.Context //nolint:containedctx // Lives exactly as long as the call it belongs to.
	part Part
	// work is scratch space; out becomes final by a rename. An installer that
	// needs its last place at once sets out = final.
	work, out, final string
	progress         Progress
}

func (in *installation) update(phase string, done, total int64) {
	in.progress.Update(in.part.Name, phase, min(done, total), total)
}

// run runs a program in dir and reports measure() while it lasts.
func (in *installation) run(phase, dir string, total int64, measure func() int64, name string, args ...string) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(in.ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = dir, &output, &output, killDelay
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(measureInterval)
	defer tick.Stop()
	in.update(phase, 0, total)
	for {
		select {
		case <-tick.C:
			in.update(phase, measure(), total)
		case err := <-ended:
			if err == nil {
				in.update(phase, total, total)
				return nil
			}
			if cause := context.Cause(in.ctx); cause != nil {
				err = cause
			}
			return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), args[0], err, firstText(output.String()))
		}
	}
}

// firstText is the beginning of an installer's output on one line: what went
// wrong stands there, and stack traces and advice follow.
func firstText(s string) string {
	s = strings.NewReplacer("npm error", "", "[ERROR]", "", "\x1b[0m", "").Replace(s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > outputLimit {
		s = s[:outputLimit] + " …"
	}
	return s
}

// treeSize adds up the files below dir; files that vanish meanwhile do not
// count.
func treeSize(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // A folder that vanished.
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
