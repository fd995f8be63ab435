package assembly

import (
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/evidence"
	"github.com/millrace/millrace/cmd/internal/reread"
)

// OpenEvidence opens the blobs and the target of a pipeline to read rows' bytes
// again. The pipeline may run meanwhile. What it gives has no engine; Close it.
func OpenEvidence(cfg config.Config) (*Pipeline, evidence.Deps, error) {
	p := &Pipeline{}
	conn, err := p.openToRead(cfg)
	if err != nil {
		p.Close()
		return nil, evidence.Deps{}, err
	}
	return p, evidence.Deps{Conn: conn, Blobs: reread.Blobs{Store: p.blobs(), Ranges: p.Reader}, Allocator: memory.DefaultAllocator}, nil
}
