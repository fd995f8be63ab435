package verify

import (
	"time"
)

// Level is how much was compared.
type Level string

// Levels.
const (
	Quick Level = "quick" // tables against the ledger
	Full  Level = "blobs" // tables against the bytes
)

// Kind says what a finding is.
type Kind string

// Kinds of findings.
const (
	MissingRows       Kind = "missing_rows"       // bytes that were committed have no row
	SurplusRows       Kind = "surplus_rows"       // rows are there more than once
	AlteredRows       Kind = "altered_rows"       // rows are not what their bytes say
	ForeignRows       Kind = "foreign_rows"       // rows that no bytes say, or of no registered ledger
	MissingQuarantine Kind = "missing_quarantine" // what was refused has no entry
	SurplusQuarantine Kind = "surplus_quarantine" // entries are there more than once
	MissingWindow     Kind = "missing_window"     // rows of a closed window, and no row of it
	DoubledWindow     Kind = "doubled_window"     // a window's row is there more than once
	ChangedWindow     Kind = "changed_window"     // a window's row is not what the rows add up to
	Gap               Kind = "gap"                // bytes between two commits that no commit has
	Overlap           Kind = "overlap"            // bytes that two commits have
	UnknownCommit     Kind = "unknown_commit"     // rows of a commit that neither table batches nor ledger know
	Rewritten         Kind = "rewritten_blob"     // other bytes stand where a commit read
	Unread            Kind = "unread"             // bytes of a blob that nobody read
	ForeignLedger     Kind = "foreign_ledger"     // a ledger that the target does not know, or knows by another name
)

// Finding is one thing that is not as it should be. A byte range of length 0 has no
// known end.
type Finding struct {
	Kind       Kind   `json:"kind"`
	Table      string `json:"table"`
	Blob       string `json:"blob,omitempty"` // account/container/path
	Generation uint32 `json:"generation"`
	Offset     int64  `json:"offset"`
	Length     int64  `json:"length"`
	Batch      uint64 `json:"batch_id,omitempty"`
	Count      int64  `json:"count"` // rows, entries or bytes; of a window the rows that it should have
	// Window says which, for findings of windows.
	Window *Window `json:"window,omitempty"`
	// Addresses are some of the rows.
	Addresses []string `json:"addresses,omitempty"`
	Detail    string   `json:"detail,omitempty"`
	// Uncertain: it may be a consequence of another finding.
	Uncertain bool `json:"uncertain,omitempty"`
	// Repairable says that --repair puts it right.
	Repairable bool   `json:"repairable"`
	Todo       string `json:"todo"`
}

// Window names a group of a table of windows, of one shard, with its totals.
type Window struct {
	Start  time.Time         `json:"window_start"`
	Ledger uint16            `json:"ledger"`
	Shard  int               `json:"shard"`
	Key    map[string]string `json:"key"`
	Landed map[string]uint64 `json:"landed"` // over the rows of the window
	Wanted map[string]uint64 `json:"wanted"` // over the flow rows
}

// Why says why something is expired.
type Why string

// Reasons to be expired.
const (
	ByTTL      Why = "ttl"
	ByPeople   Why = "forgotten"
	BySource   Why = "source_gone"       // the blob was deleted: its rows cannot be compared any more
	ByRewrite  Why = "former_generation" // the blob was written anew, and read again
	Unreadable Why = "unreadable"        // the blob cannot be read now: try again
)

// Expired counts what can be compared no more, and is no fault.
type Expired struct {
	Why   Why    `json:"why"`
	Table string `json:"table"`
	Rows  int64  `json:"rows"` // that are not there any more, or that cannot be compared
	Blobs int64  `json:"blobs"`
	// Example is one of the blobs.
	Example string `json:"example,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// Counts are what was compared.
type Counts struct {
	Batches     int64 `json:"batches"`
	Ranges      int64 `json:"ranges"` // byte ranges of them
	Blobs       int64 `json:"blobs"`
	Rows        int64 `json:"rows"`        // in the table flows
	Quarantined int64 `json:"quarantined"` // entries
	Filtered    int64 `json:"filtered"`    // rows that filters left out
	Windows     int64 `json:"windows"`     // groups of windows
	BytesRead   int64 `json:"bytes_read"`
	// Written is what the bytes hold: rows, refused tuples and filtered rows. Full level.
	Written int64 `json:"written"`
}

// Pending is what is still on its way, and compared by a later run.
type Pending struct {
	Batches int64 `json:"batches"` // committed, not known to have landed
	Rows    int64 `json:"rows"`    // of such
	Bytes   int64 `json:"bytes"`   // of blobs that the pipeline has not come to yet
}

// Result is what a run found. Its keys in JSON are stable.
type Result struct {
	Level Level     `json:"level"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	// Exact says that there is no finding.
	Exact bool `json:"exact"`
	Counts
	// Found counts findings by kind, those too that Findings has no room for.
	Found   map[Kind]int64 `json:"found"`
	Expired []Expired      `json:"expired,omitempty"`
	Pending Pending        `json:"pending"`
	// Notes tell of what was not compared.
	Notes []string      `json:"notes,omitempty"`
	Took  time.Duration `json:"took_ns"`

	Findings []Finding `json:"-"` // at most MaxFindings, in the order of hours
}

// MaxFindings bounds the findings that are kept; all are counted.
const MaxFindings = 10_000

// Progress is how far a run has come.
type Progress struct {
	Hour  time.Time
	Hours int // of the period
	Done  int // of them
	Blobs int64
	Bytes int64 // read
	Total int64 // bytes that were committed in the period
	Rows  int64
}

func (r *Result) add(f Finding) {
	if r.Found == nil {
		r.Found = map[Kind]int64{}
	}
	r.Found[f.Kind]++
	if len(r.Findings) < MaxFindings {
		r.Findings = append(r.Findings, f)
	}
}

func (r *Result) expire(e Expired) {
	for i := range r.Expired {
		if x := &r.Expired[i]; x.Why == e.Why && x.Table == e.Table && x.Detail == e.Detail {
			x.Rows, x.Blobs = x.Rows+e.Rows, x.Blobs+e.Blobs
			return
		}
	}
	r.Expired = append(r.Expired, e)
}

func (r *Result) note(text string) {
	for _, n := range r.Notes {
		if n == text {
			return
		}
	}
	r.Notes = append(r.Notes, text)
}

// maxAddresses is how many addresses a finding names.
const maxAddresses = 5
