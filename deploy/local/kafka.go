package local

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A Kafka broker and kcat, a client of others, for tests.
const (
	PartKafka = "kafka"
	PartKcat  = "kcat"

	EnvKafka = "MILLRACE_KAFKA"
	EnvKcat  = "MILLRACE_KCAT"
)

const (
	kafkaVersion = "4.4.0"
	kcatVersion  = "1.7.1-2"
)

//go:embed kafka/pom.xml
var kafkaProject []byte

//go:embed kafka/sha256sums
var kafkaSums []byte

//go:embed kcat/sha256sums
var kcatSums []byte

func kafkaPart() Part {
	return mavenPart(Part{
		Name:    PartKafka,
		Package: "org.apache.kafka:kafka_2.13", Version: kafkaVersion,
		Download: 45_000_000, Installed: 45_000_000,
		Env:    EnvKafka,
		WayOut: "set MILLRACE_KAFKA=path to the kafka_2.13-*.jar of a Kafka you have, with its other jars beside it",
		file:   "kafka_2.13-" + kafkaVersion + ".jar",
	}, kafkaProject, kafkaSums)
}

// kcatPart is what of kcat's Debian packages a small Debian lacks. A kcat in PATH
// is taken as it is.
func kcatPart() Part {
	sum := sha256.Sum256(kcatSums)
	return Part{
		Name:    PartKcat,
		Package: "kcat", Version: kcatVersion,
		Checksum: "sha256:" + hex.EncodeToString(sum[:]) + " (of the list of packages)",
		Download: 15_000_000, Installed: 2_000_000,
		Env:     EnvKcat,
		WayOut:  "install kcat (Debian, Ubuntu: apt-get install kcat), or set MILLRACE_KCAT=path to one you have",
		tool:    toolApt,
		folder:  "kcat-" + kcatVersion + "-" + hex.EncodeToString(sum[:4]),
		file:    "kcat",
		install: installKcat,
	}
}

// inPath gives the program of a part that is taken from PATH, "" when it is not there.
func (p Part) inPath() string {
	if p.Name != PartKcat {
		return ""
	}
	path, err := exec.LookPath(p.file)
	if err != nil {
		return ""
	}
	return path
}

// installKcat downloads Debian's packages and unpacks them, which needs no rights.
// The libraries lie beside the program; a script tells the linker of them.
func installKcat(in *installation) error {
	debs := filepath.Join(in.work, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	if err := in.aptDownload(debs, debianPackages(kcatSums)); err != nil {
		return err
	}
	if err := verifySums(debs, kcatSums); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	size := func() int64 { return treeSize(in.out) }
	for _, file := range files {
		if err := in.run("unpack", in.work, in.part.Installed, size, "dpkg-deb", "--extract", file, filepath.Join(in.out, "root")); err != nil {
			return err
		}
	}
	script := filepath.Join(in.out, in.part.file)
	if err := os.WriteFile(script, []byte(kcatScript), 0o755); err != nil {
		return err
	}
	return in.run("try", in.work, in.part.Installed, size, script, "-V")
}

const kcatScript = `#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
libraries=$(dirname "$(find "$root/usr/lib" -name 'librdkafka.so.1')")
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$root/usr/bin/kcat" "$@"
`

// debianPackages reads NAME=VERSION out of the files' names, NAME_VERSION_MACHINE.deb.
func debianPackages(sums []byte) []string {
	var packages []string
	for line := range strings.Lines(string(sums)) {
		_, file, _ := strings.Cut(strings.TrimSpace(line), "  ")
		parts := strings.SplitN(file, "_", 3)
		packages = append(packages, parts[0]+"="+parts[1])
	}
	return packages
}

// aptDownload fetches packages into dir: with the machine's lists if it has them,
// else with lists of our own, which anyone may fetch.
func (in *installation) aptDownload(dir string, packages []string) error {
	fetched := func() int64 { return treeSize(in.work) }
	err := in.run("download", dir, in.part.Download, fetched, toolApt, append([]string{"-q", "download"}, packages...)...)
	if err == nil {
		return nil
	}
	state, cache := filepath.Join(in.work, "apt-state"), filepath.Join(in.work, "apt-cache")
	for _, d := range []string{filepath.Join(state, "lists", "partial"), filepath.Join(cache, "archives", "partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	ours := []string{"-q", "-o", "Dir::State=" + state, "-o", "Dir::Cache=" + cache}
	if updateErr := in.run("lists", dir, in.part.Download, fetched, toolApt, slices.Concat(ours, []string{"update"})...); updateErr != nil {
		return errors.Join(err, updateErr)
	}
	return in.run("download", dir, in.part.Download, fetched, toolApt, slices.Concat(ours, []string{"download"}, packages)...)
}
