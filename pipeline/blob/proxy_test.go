package blob_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/secret"
)

// envEndpoint makes this test a process that reads a blob of the endpoint that it
// names: Go reads the proxy settings of its environment once.
const envEndpoint = "MILLRACE_TEST_PROXIED_ENDPOINT"

// Requests go through the proxy of the environment, for https through a tunnel to
// the account's endpoint, and NO_PROXY is respected.
func TestProxyOfTheEnvironment(t *testing.T) {
	if endpoint := os.Getenv(envEndpoint); endpoint != "" {
		readThroughProxy(t, endpoint)
		return
	}
	asked := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.URL.Host
		if r.Method == http.MethodConnect {
			http.Error(w, "no tunnel today", http.StatusBadGateway)
			return
		}
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Range", "bytes 0-3/4")
		w.WriteHeader(http.StatusPartialContent)
		fmt.Fprint(w, "good")
	}))
	defer proxy.Close()
	for _, c := range []struct{ endpoint, except, asked, says string }{
		{"http://logs.blob.example", "", "GET logs.blob.example", "read: good"},
		{"https://logs.blob.example", "", "CONNECT logs.blob.example:443", "Bad Gateway"},
		{"http://logs.blob.example", "blob.example", "", "failed:"},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestProxyOfTheEnvironment$", "-test.v")
		cmd.Env = append(os.Environ(), envEndpoint+"="+c.endpoint, "HTTP_PROXY="+proxy.URL, "HTTPS_PROXY="+proxy.URL, "NO_PROXY="+c.except)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: %v, want %q:\n%s", c.endpoint, err, c.says, out)
		}
		got := ""
		select {
		case got = <-asked:
		default:
		}
		if got != c.asked {
			t.Errorf("%s except %q: the proxy is asked for %q, want %q", c.endpoint, c.except, got, c.asked)
		}
	}
}

func readThroughProxy(t *testing.T, endpoint string) {
	store, err := blob.NewAzureStore([]blob.AccountConfig{{Name: "logs", Endpoint: endpoint, SAS: secret.New("sig=x")}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	got, err := store.Get(t.Context(), pipeline.BlobID{Account: "logs", Container: "flow", Path: "a/PT1H.json"}, 0, 4, "")
	if err != nil {
		t.Log("failed:", err)
		return
	}
	defer got.Body.Close()
	text := make([]byte, 4)
	n, _ := got.Body.Read(text)
	t.Logf("read: %s", text[:n])
}
