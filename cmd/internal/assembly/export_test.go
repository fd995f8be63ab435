package assembly

import (
	"testing"
	"time"
)

// LookAtFilesEvery makes pipelines of one test look at their files more often.
func LookAtFilesEvery(t *testing.T, every time.Duration) {
	before := filesEvery
	filesEvery = every
	t.Cleanup(func() { filesEvery = before })
}
