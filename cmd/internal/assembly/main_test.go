package assembly_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Goroutines that a pipeline leaves behind fail the tests.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
