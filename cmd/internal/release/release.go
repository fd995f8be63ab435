// Package release says which build of the programs this is.
package release

import (
	"fmt"
	"runtime"
)

// Set by the linker, see GO_BUILD in the Makefile. The stamp that the go command makes
// by itself is left out there: a checkout of another owner would stop the build.
var (
	// Version is that of the release, with the number of commits behind it.
	Version = "devel"
	// Commit that was built; "" when nobody said.
	Commit = ""
)

// Build is what a program tells of itself.
type Build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Current gives this build.
func Current() Build {
	return Build{Version: Version, Commit: Commit, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
}

// String is the build in one line.
func (b Build) String() string {
	commit := b.Commit
	if commit == "" {
		commit = "unknown"
	}
	return fmt.Sprintf("%s, commit %s, %s, %s/%s", b.Version, commit, b.Go, b.OS, b.Arch)
}

// Short names the build in metrics and traces.
func Short() string {
	if Version == "devel" && Commit != "" {
		return Commit
	}
	return Version
}
