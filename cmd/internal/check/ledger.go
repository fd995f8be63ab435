package check

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/pipeline/ledger"
)

// ledger asks the container of a shared ledger for its rights, and who owns it.
func (r *run) ledger(ctx context.Context) {
	const key = "ledger.azure"
	store, err := assembly.LedgerContainer(r.cfg)
	if err != nil {
		r.add(Fault, key, "%s", strings.TrimPrefix(err.Error(), key+": "))
		return
	}
	defer store.Close()
	missing, err := store.Examine(ctx)
	switch {
	case err != nil:
		r.add(Fault, key, "%s", told(ctx, err))
		return
	case missing:
		r.add(Warn, key+".container", "there is no container %q: it is made at the first start, if the credential may do so; make it yourself to see here whether the ledger can be written", r.cfg.Ledger.Azure.Container)
		return
	}
	r.add(OK, key, "may be listed, read, written and deleted in")
	owner, err := ledger.CurrentOwner(ctx, store)
	switch {
	case errors.Is(err, ledger.ErrNotExist):
		r.add(OK, key, "no instance owns it")
	case err != nil:
		r.add(Fault, key, "%s", told(ctx, err))
	case owner.Released:
		r.add(OK, key, "no instance owns it; the last one was %q", owner.Instance)
	default:
		r.add(OK, key, "instance %q owns it since epoch %d, and gave its last sign of life %v ago by its clock", owner.Instance, owner.Epoch, time.Since(owner.Renewed).Round(time.Second))
	}
}
