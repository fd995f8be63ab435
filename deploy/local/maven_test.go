package local

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeMaven puts an mvn in PATH that runs the script with the folder to fill in
// $out.
func fakeMaven(t *testing.T, script string) {
	t.Helper()
	bin := t.TempDir()
	program(t, bin, toolMaven, `for a in "$@"; do case "$a" in -DoutputDirectory=*) out="${a#-DoutputDirectory=}";; esac; done
`+script)
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func sums(files map[string]string) []byte {
	var b bytes.Buffer
	for name, text := range files {
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256([]byte(text)), name)
	}
	return b.Bytes()
}

func TestMavenPartHoldsExactlyWhatIsPinned(t *testing.T) {
	pinned := sums(map[string]string{"a-1.jar": "a", "b-2.jar": "b"})
	const good = `printf a >"$out/a-1.jar"; printf b >"$out/b-2.jar"; `
	for _, tt := range []struct{ name, script, want string }{
		{"as pinned", good, ""},
		{"needs the project", `grep -q "<project>" pom.xml || exit 1; ` + good, ""},
		{"another jar's bytes", good + `printf c >"$out/b-2.jar"`, "b-2.jar has the checksum sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6"},
		{"one jar too many", good + `printf c >"$out/c-3.jar"`, "c-3.jar is not in the list"},
		{"one jar too few", good + `rm "$out/b-2.jar"`, "b-2.jar: no such file"},
		{"unreachable", `printf '\033[0m[ERROR] Could not transfer artifact\n'; exit 1`, "exit status 1: Could not transfer artifact"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fakeMaven(t, tt.script)
			cache := Cache{Root: t.TempDir()}
			part := mavenPart(Part{Name: "jars", Version: "1", Env: "MILLRACE_TEST_JARS", file: "a-1.jar"}, []byte("<project>"), pinned)
			err := Ensure(t.Context(), cache, []Part{part}, &quiet{})
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(filepath.Join(filepath.Dir(cache.Path(part)), "b-2.jar")); err != nil {
					t.Errorf("the jars are not in one folder: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Ensure: %v, want an error with %q", err, tt.want)
			}
			if ok, err := cache.Present(part); ok || err != nil {
				t.Errorf("present after a refusal: %t, %v", ok, err)
			}
		})
	}
}

// TestMavenProjectsArePinned: one change of a project or its list moves the part's
// folder, and versions are exact.
func TestMavenProjectsArePinned(t *testing.T) {
	if want := "<version>" + javaVersion + "</version>"; !bytes.Contains(javaProject, []byte(want)) {
		t.Errorf("java/pom.xml does not hold %s", want)
	}
	if n := bytes.Count(javaSums, []byte(".jar\n")); n != 14 {
		t.Errorf("java/sha256sums lists %d jars, want 14", n)
	}
	part := javaPart()
	if !strings.Contains(string(javaSums), "  "+part.file+"\n") {
		t.Errorf("java/sha256sums does not list %s", part.file)
	}
	other := mavenPart(part, javaProject, append([]byte("x"), javaSums...))
	if other.folder == part.folder || other.Checksum == part.Checksum {
		t.Error("another list of checksums is the same part")
	}
}

// A kcat that the machine has is taken; nothing is downloaded then.
func TestKcatInPathIsTaken(t *testing.T) {
	bin := emptyMachine(t)
	cache := Cache{Root: t.TempDir()}
	if ok, err := cache.Present(kcatPart()); ok || err != nil {
		t.Fatalf("present on an empty machine: %t, %v", ok, err)
	}
	program(t, bin, "kcat", "exit 0")
	if ok, err := cache.Present(kcatPart()); !ok || err != nil || cache.Path(kcatPart()) != filepath.Join(bin, "kcat") {
		t.Errorf("present: %t, %v, path %q", ok, err, cache.Path(kcatPart()))
	}
}

func TestPackagesOfDebianAreNamedWithVersions(t *testing.T) {
	want := []string{"kcat=1.7.1-2", "librdkafka1=2.0.2-1", "libyajl2=2.1.0-3+deb12u2", "liblz4-1=1.9.4-1"}
	if got := debianPackages(kcatSums); !slices.Equal(got, want) {
		t.Errorf("packages %q, want %q", got, want)
	}
}
