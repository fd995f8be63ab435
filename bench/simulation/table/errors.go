package table

import "errors"

// Errors of statements. Class says what the sink makes of each.
var (
	// ErrFenced: the INSERT's epoch is over. Nothing was written.
	ErrFenced = errors.New("a later owner has taken over")
	// ErrDown: no connection. Nothing was sent.
	ErrDown = errors.New("connection refused")
	// ErrLost: the connection broke after it was there. What became of the statement
	// is unknown.
	ErrLost = errors.New("connection lost")
	// ErrMemory: the memory limit, met before or behind the commit. Doubt too.
	// ErrUnknownStatus: a replicated INSERT whose quorum or Keeper did not answer.
	ErrMemory        = errors.New("code 241: memory limit exceeded")
	ErrUnknownStatus = errors.New("code 319: unknown status of insert")
	// ErrReadOnly, ErrTooManyParts, ErrNoSpace, ErrTooManyQueries: refused before
	// anything was written; may succeed later.
	ErrReadOnly       = errors.New("code 242: table is read-only")
	ErrTooManyParts   = errors.New("code 252: too many parts")
	ErrNoSpace        = errors.New("code 243: not enough space")
	ErrTooManyQueries = errors.New("code 202: too many simultaneous queries")
	// ErrManyPartitions: a block spans partitions in an INSERT that must not; a bug of
	// the sender.
	ErrManyPartitions = errors.New("code 252: too many partitions for single INSERT block")
	// ErrUnknownTable, ErrAccess: no retry mends them.
	ErrUnknownTable = errors.New("code 60: unknown table")
	ErrAccess       = errors.New("code 497: access denied")
	// ErrQueryRuns: an INSERT of the same query id runs.
	ErrQueryRuns = errors.New("code 216: query with the same id is already running")
)

// Class is what the sink tells its caller about an INSERT.
type Class int

// Classes of an INSERT's end, as sinks/clickhouse tells them apart.
const (
	Landed Class = iota
	Fenced
	Transient
	InDoubt
	Fatal
)

func (c Class) String() string {
	return [...]string{"landed", "fenced", "transient", "in doubt", "fatal"}[c]
}

// ClassOf gives the class of an INSERT's error.
func ClassOf(err error) Class {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return Landed
	case is(ErrFenced):
		return Fenced
	case is(ErrDown, ErrReadOnly, ErrTooManyParts, ErrNoSpace, ErrTooManyQueries):
		return Transient
	case is(ErrManyPartitions, ErrUnknownTable, ErrAccess):
		return Fatal
	}
	return InDoubt
}
