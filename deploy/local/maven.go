package local

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// mavenGoal copies what a project depends on, the transitive jars too.
const mavenGoal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

// mavenFlags keep Maven short; it is used as the user configured it.
var mavenFlags = []string{"-q", "-B", "-Dstyle.color=never", "-Daether.connector.connectTimeout=10000"}

// mavenPart makes a part of jars: what the project in pom depends on, which must
// be exactly the files in sums, a list as `sha256sum *.jar` prints it. All jars
// lie in one folder, so the class path is the folder of the part's file.
func mavenPart(p Part, pom, sums []byte) Part {
	sum := sha256.Sum256(append(append([]byte{}, pom...), sums...))
	p.Checksum = "sha256:" + hex.EncodeToString(sum[:]) + " (of the project and its list of checksums)"
	p.folder = p.Name + "-" + p.Version + "-" + hex.EncodeToString(sum[:4])
	p.tool = toolMaven
	p.install = func(in *installation) error { return installMaven(in, pom, sums) }
	return p
}

func installMaven(in *installation, pom, sums []byte) error {
	if err := os.WriteFile(filepath.Join(in.work, "pom.xml"), pom, 0o644); err != nil {
		return err
	}
	args := append([]string{mavenGoal, "-DoutputDirectory=" + in.out}, mavenFlags...)
	if err := in.run("install", in.work, in.part.Installed, func() int64 { return treeSize(in.out) }, "mvn", args...); err != nil {
		return err
	}
	return verifySums(in.out, sums)
}

// verifySums compares a folder with a list of checksums: each file that is listed
// must be there as it is listed, and no other.
func verifySums(dir string, sums []byte) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	found := map[string]bool{}
	for _, e := range entries {
		found[e.Name()] = true
	}
	var faults []error
	for line := range strings.Lines(string(sums)) {
		want, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if got, err := fileSum(filepath.Join(dir, name)); err != nil {
			faults = append(faults, err)
		} else if got != want {
			faults = append(faults, fmt.Errorf("%s has the checksum sha256:%s, which is not the pinned one", name, got))
		}
		delete(found, name)
	}
	for name := range found {
		faults = append(faults, fmt.Errorf("%s is not in the list of checksums", name))
	}
	return errors.Join(faults...)
}

func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
