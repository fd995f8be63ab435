package ledger

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/millrace/millrace/pipeline"
)

// Folders of what transforms are made of: their recipes and their data, each under
// its pipeline.Hash. Both are written before a manifest names the recipe, and kept
// until no manifest does that a recovery may read.
const (
	recipeFolder = "transforms/"
	dataFolder   = "data/"
)

// recipeObject is one version of a transform.
type recipeObject struct {
	Name   string   `json:"name"`
	Recipe []byte   `json:"recipe"`
	Data   []string `json:"data,omitempty"` // hashes
}

// kept says which versions of transforms the store holds, and who needs them.
type kept struct {
	mu       sync.Mutex
	versions map[string]*version // by hash of the recipe
}

type version struct {
	data []string // hashes
	// lastUse is the last batch of each shard that may need the version; a shard that
	// is not in it needs it no more.
	lastUse map[int]uint64
}

// orphans stands for data that no recipe in the store names: a crash came between.
// It goes when a version of that time would.
const orphans = ""

// findKept lists what earlier owners left. Any manifest that is there may need it.
func (l *Ledger) findKept(ctx context.Context) error {
	l.kept.versions = map[string]*version{}
	recipes, err := l.store.List(ctx, recipeFolder)
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, name := range recipes {
		var o recipeObject
		if err := l.look(ctx, name, "transform", &o); err != nil && !damaged(err) {
			return err // a damaged one is an error to whoever needs it
		}
		l.kept.versions[strings.TrimPrefix(name, recipeFolder)] = l.needed(o.Data)
		for _, hash := range o.Data {
			named[hash] = true
		}
	}
	data, err := l.store.List(ctx, dataFolder)
	if err != nil {
		return err
	}
	var left []string
	for _, name := range data {
		if hash := strings.TrimPrefix(name, dataFolder); !named[hash] {
			left = append(left, hash)
		}
	}
	if len(left) > 0 {
		l.kept.versions[orphans] = l.needed(left)
	}
	return nil
}

// needed makes a version that every shard may need until its recovery says more.
func (l *Ledger) needed(data []string) *version {
	v := &version{data: data, lastUse: map[int]uint64{}}
	for shard := range l.info.Shards {
		v.lastUse[shard] = math.MaxUint64
	}
	return v
}

// recovered says which manifest of a shard is the last one that an earlier owner
// wrote.
func (k *kept) recovered(shard int, last uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range k.versions {
		if v.lastUse[shard] == math.MaxUint64 {
			v.lastUse[shard] = last
		}
	}
}

// KeepTransform makes durable what a replay of the batch needs of a transform.
// Call it before WriteManifest names the version.
func (l *Ledger) KeepTransform(ctx context.Context, shard int, seq uint64, name string, t pipeline.Transform) error {
	l.kept.mu.Lock()
	defer l.kept.mu.Unlock()
	hash := pipeline.Hash(t.Recipe())
	if v := l.kept.versions[hash]; v != nil {
		v.lastUse[shard] = max(v.lastUse[shard], seq)
		return nil
	}
	data := t.Data()
	for key, content := range data {
		if err := l.store.Put(ctx, dataFolder+key, seal("data", content)); err != nil {
			return err
		}
	}
	hashes := slices.Sorted(maps.Keys(data))
	if err := l.put(ctx, recipeFolder+hash, "transform", recipeObject{Name: name, Recipe: t.Recipe(), Data: hashes}); err != nil {
		return err
	}
	l.kept.versions[hash] = &version{data: hashes, lastUse: map[int]uint64{shard: seq}}
	return nil
}

// Transform gives the recipe of a version and a way to its data.
func (l *Ledger) Transform(ctx context.Context, hash string) (recipe []byte, data func(hash string) ([]byte, error), err error) {
	var o recipeObject
	if err := l.get(ctx, recipeFolder+hash, "transform", &o); err != nil {
		return nil, nil, err
	}
	return o.Recipe, func(hash string) ([]byte, error) {
		sealed, err := l.store.Get(ctx, dataFolder+hash)
		if err != nil {
			return nil, err
		}
		content, err := unseal("data", sealed)
		if err != nil {
			return nil, mend(fmt.Errorf("ledger object %q: %w", dataFolder+hash, err))
		}
		return content, nil
	}, nil
}

// pruneKept removes the versions that nobody needs once the manifests of a shard up
// to gone are no more. A recipe goes before its data: what has a recipe is whole.
func (l *Ledger) pruneKept(ctx context.Context, shard int, gone uint64) error {
	l.kept.mu.Lock()
	defer l.kept.mu.Unlock()
	for hash, v := range l.kept.versions {
		if last, needs := v.lastUse[shard]; needs && last <= gone {
			delete(v.lastUse, shard)
		}
		if len(v.lastUse) > 0 {
			continue
		}
		if hash != orphans {
			if err := l.store.Delete(ctx, recipeFolder+hash); err != nil {
				return err
			}
		}
		delete(l.kept.versions, hash)
		for _, data := range v.data {
			if l.kept.names(data) {
				continue
			}
			if err := l.store.Delete(ctx, dataFolder+data); err != nil {
				return err
			}
		}
	}
	return nil
}

// names says whether some version needs the data.
func (k *kept) names(data string) bool {
	for _, v := range k.versions {
		if slices.Contains(v.data, data) {
			return true
		}
	}
	return false
}
