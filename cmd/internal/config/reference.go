package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/millrace/millrace/pipeline/secret"
)

// Reference says where a secret is: {env: NAME} or {file: PATH}, one of the two.
type Reference struct {
	// Env names an environment variable that holds the secret. Optional.
	Env string `yaml:"env"`
	// File is the path of a file whose one line is the secret. Optional.
	File string `yaml:"file"`
}

// Set says whether the reference names anything.
func (r Reference) Set() bool { return r.Env != "" || r.File != "" }

// Resolve reads the secret.
//
// Errors: the variable or the file is empty, the file cannot be read, or both are
// named.
func (r Reference) Resolve() (secret.Secret, error) {
	switch {
	case r.Env != "" && r.File != "":
		return secret.Secret{}, errors.New("names both env and file: keep one")
	case r.Env != "":
		v := os.Getenv(r.Env)
		if v == "" {
			return secret.Secret{}, fmt.Errorf("environment variable %q is empty: export it", r.Env)
		}
		return secret.New(v), nil
	case r.File != "":
		data, err := os.ReadFile(r.File)
		if err != nil {
			return secret.Secret{}, fmt.Errorf("read secret: %w", err)
		}
		text := strings.TrimSpace(string(data))
		if text == "" {
			return secret.Secret{}, fmt.Errorf("file %q is empty: write the secret into it", r.File)
		}
		return secret.New(text), nil
	}
	return secret.Secret{}, nil
}

// Named is a reference with its key path.
type Named struct {
	Key string
	// Live: a running pipeline takes a new secret over.
	Live bool
	Reference
}

// References gives every secret that the configuration names, of every section, in
// the order of the fields.
func (c Config) References() []Named {
	var found []Named
	eachReference(&c, func(n Named) { found = append(found, n) })
	return found
}

// CheckSecrets reports every secret at once that is named and not there.
func (c Config) CheckSecrets() error {
	var faults []error
	for _, n := range c.References() {
		if _, err := n.Resolve(); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", n.Key, err))
		}
	}
	return errors.Join(faults...)
}
