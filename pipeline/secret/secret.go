// Package secret keeps keys, tokens and passwords out of logs, errors, dumps and
// configuration prints.
//
// A Secret goes in from the configuration and comes out only through Reveal, at
// the place that speaks to the other side. The package is a leaf: anyone may
// import it.
package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Mask is what every printed secret looks like.
const Mask = "***"

// Secret holds a text that is printed as Mask, however it is printed. The zero
// value is an absent secret and is printed as "".
//
// The text is kept behind a pointer because fmt prints the unexported fields of a
// struct by reflection, without asking Format: what it then shows is an address.
type Secret struct{ text *string }

// New wraps the text. An empty text gives the zero value.
func New(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal gives the text. Callers hand it to the other side and keep no copy.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero says whether there is no secret.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal compares in constant time for texts of one length.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// String gives Mask, or "" for an absent secret.
func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return Mask
}

// GoString is what %#v prints.
func (s Secret) GoString() string { return `secret.New("` + s.String() + `")` }

// Format prints Mask for every verb and flag.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	switch {
	case verb == 'q':
		text = `"` + text + `"`
	case verb == 'v' && f.Flag('#'):
		text = s.GoString()
	}
	_, _ = io.WriteString(f, text)
}

// LogValue is what slog prints.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText serves JSON, YAML and every encoder that asks for text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON gives the masked text as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// MarshalYAML gives the masked text.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// UnmarshalText reads the secret out of a configuration file.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = New(string(text))
	return nil
}
