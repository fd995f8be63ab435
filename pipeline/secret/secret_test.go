package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/millrace/millrace/pipeline/secret"
)

const canary = "CANARY-4f1c"

// holder is how a configuration or a client keeps a secret, also where nobody can
// call a method of it.
type holder struct {
	Name   string        `json:"name" yaml:"name"`
	Key    secret.Secret `json:"key" yaml:"key"`
	hidden secret.Secret
}

func TestNoWayOfPrintingShowsIt(t *testing.T) {
	s := secret.New(canary)
	h := holder{Name: "a", Key: s, hidden: s}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s", "%-10.3s", "%t", "%p", "%U"} {
		for _, v := range []any{s, &s, h, &h, []secret.Secret{s}, map[string]secret.Secret{"k": s}, []holder{h}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	fmt.Fprintln(&out, s, h, errors.New(s.String()), fmt.Errorf("open %v", s))
	for _, handler := range []func(*bytes.Buffer) slog.Handler{
		func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(handler(&b)).Info("x", slog.Any("s", s), slog.Any("p", &s), slog.Any("h", h))
		out.Write(b.Bytes())
	}
	j, err := json.Marshal([]any{s, &s, h, map[secret.Secret]int{s: 1}})
	if err != nil {
		t.Fatal(err)
	}
	y, err := yaml.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	out.Write(y)
	func() {
		defer func() { fmt.Fprintln(&out, recover()) }()
		panic(fmt.Sprintf("%+v", h))
	}()
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("it shows as %q", form)
		}
	}
	if !strings.Contains(string(j), secret.Mask) || !strings.Contains(string(y), secret.Mask) {
		t.Errorf("no mask in %s or %s", j, y)
	}
}

func TestItComesOutOfConfigurations(t *testing.T) {
	for name, read := range map[string]func(*holder) error{
		"yaml": func(h *holder) error { return yaml.Unmarshal([]byte("name: a\nkey: "+canary+"\n"), h) },
		"json": func(h *holder) error { return json.Unmarshal([]byte(`{"name":"a","key":"`+canary+`"}`), h) },
	} {
		var h holder
		if err := read(&h); err != nil || h.Key.Reveal() != canary {
			t.Errorf("%s: %q, %v", name, h.Key.Reveal(), err)
		}
	}
}

func TestZeroAndEqual(t *testing.T) {
	var none secret.Secret
	if !none.IsZero() || none.String() != "" || none.Reveal() != "" || !secret.New("").IsZero() {
		t.Error("an absent secret")
	}
	if !secret.New("a").Equal(secret.New("a")) || secret.New("a").Equal(secret.New("b")) || secret.New("a").Equal(none) {
		t.Error("equality")
	}
}
