package local

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"path/filepath"
)

// The official Event Hubs clients of JavaScript and Java, for tests. Python's is
// in the Python environment, Go's in go.mod.
const (
	PartJavaScript = "js-sdk"
	PartJava       = "java-sdk"

	EnvJavaScript = "MILLRACE_JS_SDK"
	EnvJava       = "MILLRACE_JAVA_SDK"
)

const (
	javaScriptVersion = "6.0.4"
	javaVersion       = "5.20.0"
)

//go:embed javascript/package.json
var javaScriptPackage []byte

//go:embed javascript/package-lock.json
var javaScriptLock []byte

//go:embed java/pom.xml
var javaProject []byte

//go:embed java/sha256sums
var javaSums []byte

// javaScriptTree is what the files of the part add up to.
const javaScriptTree = 11_300_000

func javaScriptPart() Part {
	sum := sha256.Sum256(javaScriptLock)
	return Part{
		Name:    PartJavaScript,
		Package: "@azure/event-hubs", Version: javaScriptVersion,
		Checksum: "sha256:" + hex.EncodeToString(sum[:]) + " (of the lock file)",
		Download: 2_500_000, Installed: 20_000_000,
		Env:     EnvJavaScript,
		WayOut:  "set MILLRACE_JS_SDK=path to the dist/commonjs/index.js of an @azure/event-hubs you have",
		tool:    toolNpm,
		folder:  "js-sdk-" + javaScriptVersion + "-" + hex.EncodeToString(sum[:4]),
		file:    filepath.Join("node_modules", "@azure", "event-hubs", "dist", "commonjs", "index.js"),
		install: installNpm(javaScriptPackage, javaScriptLock, javaScriptTree),
	}
}

func javaPart() Part {
	return mavenPart(Part{
		Name:    PartJava,
		Package: "com.azure:azure-messaging-eventhubs", Version: javaVersion,
		Download: 6_900_000, Installed: 7_000_000,
		Env:    EnvJava,
		WayOut: "set MILLRACE_JAVA_SDK=path to an azure-messaging-eventhubs jar with its dependencies in the same folder",
		file:   "azure-messaging-eventhubs-" + javaVersion + ".jar",
	}, javaProject, javaSums)
}
