package blob_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// trusted is an authority that the system trusts, as far as these tests go.
var trusted *pipelinetest.Authority

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "blob")
	if err != nil {
		panic(err)
	}
	if trusted, err = pipelinetest.NewAuthority(); err != nil {
		panic(err)
	}
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, trusted.PEM, 0o600); err != nil {
		panic(err)
	}
	if err := os.Setenv("SSL_CERT_FILE", ca); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}
