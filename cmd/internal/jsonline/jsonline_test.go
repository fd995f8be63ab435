package jsonline_test

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/cmd/internal/jsonline"
)

func TestWrite(t *testing.T) {
	var out strings.Builder
	for _, rule := range []string{"a<b>&c", "two\nlines"} {
		if err := jsonline.Write(&out, map[string]string{"rule": rule}); err != nil {
			t.Fatal(err)
		}
	}
	if want := "{\"rule\":\"a<b>&c\"}\n{\"rule\":\"two\\nlines\"}\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
