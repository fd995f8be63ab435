// Package reload takes a changed configuration over while the pipeline runs, or says
// why it cannot: then the old one stays in force, as a whole.
//
// Run owns one goroutine, the caller's. Hooks are called from it, one at a time.
package reload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/secret"
)

// Interval is how often the file, and those of the secrets, are looked at.
const Interval = 5 * time.Second

// Hook takes a new configuration over, or refuses it. It is called with the two
// swapped when a hook behind it refused, and must then go back.
type Hook func(old, fresh config.Config) error

// Watcher watches one configuration file.
type Watcher struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	current config.Config
	fixed   map[string]secret.Secret // secrets that only a start reads, by key
	seen    [sha256.Size]byte
	hooks   []Hook
}

// New makes a watcher; current is what was read out of the file.
func New(path string, current config.Config, log *slog.Logger) *Watcher {
	w := &Watcher{path: path, current: current, log: log}
	w.seen = w.digest()
	w.fixed = fixedSecrets(current)
	return w
}

// fixedSecrets reads those that a running pipeline does not take over.
func fixedSecrets(cfg config.Config) map[string]secret.Secret {
	found := map[string]secret.Secret{}
	for _, n := range cfg.References() {
		if n.Live {
			continue
		}
		if s, err := n.Resolve(); err == nil {
			found[n.Key] = s
		}
	}
	return found
}

// OnReload adds a hook. Hooks are called in the order in which they were added.
func (w *Watcher) OnReload(hook Hook) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hooks = append(w.hooks, hook)
}

// Run reloads at every hangup, and whenever the file or a secret's file has changed,
// until ctx ends.
func (w *Watcher) Run(ctx context.Context, hangup <-chan os.Signal) {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			w.say(w.Reload())
		case <-tick.C:
			if w.changed() {
				w.say(w.Reload())
			}
		}
	}
}

func (w *Watcher) say(err error) {
	if err != nil {
		w.log.Error("configuration not reloaded, the old one stays in force", slog.String("config", w.path), slog.Any("cause", err))
		return
	}
	w.log.Info("configuration reloaded", slog.String("config", w.path))
}

func (w *Watcher) changed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.digest() != w.seen
}

// digest covers the file and those of the secrets in it. What cannot be read counts
// as empty: the reload says so.
func (w *Watcher) digest() [sha256.Size]byte {
	h := sha256.New()
	files := []string{w.path}
	for _, n := range w.current.References() {
		files = append(files, n.File)
	}
	for _, name := range files {
		data, _ := os.ReadFile(name) // an empty name, too, is nothing to read
		sum := sha256.Sum256(data)
		h.Write(sum[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// ErrRestart: a change needs a restart.
var ErrRestart = errors.New("cannot change while the pipeline runs: stop it, and start it with the new value")

// Reload reads the file and takes it over, all of it or nothing.
//
// Errors: faults of the file; secrets that are not there; every key, and every key of
// a secret, that cannot change in a running pipeline, with ErrRestart; what a hook
// refused.
func (w *Watcher) Reload() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = w.digest() // whatever comes of it, it is not tried again before the next change
	fresh, err := config.Load(w.path)
	if err != nil {
		return err
	}
	if err := fresh.CheckSecrets(); err != nil {
		return err
	}
	var fixed []string
	for _, c := range config.Changes(w.current, fresh) {
		if !c.Live {
			fixed = append(fixed, c.Key)
		}
	}
	for key, s := range fixedSecrets(fresh) {
		if old, there := w.fixed[key]; there && !old.Equal(s) {
			fixed = append(fixed, key)
		}
	}
	slices.Sort(fixed)
	if len(fixed) > 0 {
		return fmt.Errorf("%s: %w", strings.Join(fixed, ", "), ErrRestart)
	}
	for i, hook := range w.hooks {
		if err := hook(w.current, fresh); err != nil {
			if errors.Is(err, assembly.ErrStarting) {
				w.seen = [sha256.Size]byte{} // it is tried again
			}
			for _, done := range w.hooks[:i] {
				err = errors.Join(err, done(fresh, w.current))
			}
			return err
		}
	}
	w.current = fresh
	w.seen = w.digest() // it may name other files now
	return nil
}
