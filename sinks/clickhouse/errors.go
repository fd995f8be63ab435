package clickhouse

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/millrace/millrace/pipeline"
)

// ServerError is an answer of the server, or of something between us and it,
// that says no.
type ServerError struct {
	Code   int    // ClickHouse's own; 0 when the answer carries none
	Status int    // HTTP
	Text   string // as the server wrote it, shortened
}

func (e *ServerError) Error() string {
	if e.Code == 0 {
		return fmt.Sprintf("HTTP status %d without a ClickHouse error code (is the URL a ClickHouse?): %s", e.Status, e.Text)
	}
	return e.Text
}

// Codes of ClickHouse that this package knows by number.
const (
	codeNoSuchColumn         = 16
	codeUnknownIdentifier    = 47
	codeTypeMismatch         = 53
	codeUnknownTable         = 60
	codeUnknownDatabase      = 81
	codeUnknownSetting       = 115
	codeIncorrectData        = 117
	codeReadonly             = 164
	codeTooManyQueries       = 202
	codeTableIsReadOnly      = 242
	codeNotEnoughSpace       = 243
	codeTooManyParts         = 252
	codeThrowIf              = 395
	codeSettingConstraint    = 452
	codeAccessDenied         = 497
	codeAuthenticationFailed = 516
)

// fenceMark stands in the message of the fence's own refusal, so that another
// throwIf (a constraint, a view of the user's) is not taken for it.
const fenceMark = "millrace fence: a later owner has taken over"

// refusals are codes that the server gives before it writes anything: the rows
// are not there, and the same INSERT may succeed later.
//
// Not among them is the memory limit (241): the server can meet it behind the
// commit too, so what it leaves is doubt. A probe is cheap.
var refusals = map[int]bool{
	codeTooManyQueries:  true,
	codeTableIsReadOnly: true,
	codeNotEnoughSpace:  true,
	codeTooManyParts:    true,
}

// hopeless are codes that no retry mends, with what to do.
var hopeless = map[int]string{
	codeNoSuchColumn:         "the table differs from the schema: start the pipeline again to migrate it",
	codeUnknownIdentifier:    "the table differs from the schema: start the pipeline again to migrate it",
	codeTypeMismatch:         "the table differs from the schema: start the pipeline again to see which column",
	codeUnknownTable:         "the table is gone: start the pipeline again to create it",
	codeUnknownDatabase:      "the database is gone: start the pipeline again to create it",
	codeUnknownSetting:       "the server is too old, or a proxy refuses settings: want ClickHouse " + MinVersion + " or newer",
	codeIncorrectData:        "the server does not understand the rows: please report this with the server's version",
	codeReadonly:             "the user may only read: grant INSERT and let it change settings",
	codeSettingConstraint:    "the user's profile forbids a setting that exactly-once needs: relax the constraint",
	codeAccessDenied:         "grant INSERT and SELECT on the database to the user",
	codeAuthenticationFailed: "check user and password",
}

// classify says what an INSERT of rows came to. Only an answer of the server, or
// a connection that never was, tells for sure; everything else is doubt.
func classify(out outcome, err error) error {
	if err == nil {
		return nil
	}
	if untrusted(err) {
		return fatalTrust(err)
	}
	unknown := fmt.Errorf("%w: %w", pipeline.ErrInDoubt, err)
	if !out.connected {
		unknown = fmt.Errorf("%w: nothing was sent: %w", pipeline.ErrTransient, err)
	}
	var server *ServerError
	if !errors.As(err, &server) || server.Code == 0 {
		return unknown
	}
	switch hint, dead := hopeless[server.Code]; {
	case server.Code == codeThrowIf && strings.Contains(server.Text, fenceMark):
		return fmt.Errorf("%w: %w", pipeline.ErrFenced, err)
	case server.Code == codeTooManyParts && strings.Contains(server.Text, "partitions for single INSERT"):
		return fmt.Errorf("BUG: the piece spans more than one partition: %w", err)
	case refusals[server.Code]:
		return fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
	case dead:
		return fmt.Errorf("%w: %s", err, hint)
	}
	return unknown
}

// untrusted says that the server's certificate is not one we trust: then nothing
// was sent, and no retry mends it.
func untrusted(err error) bool {
	var verification *tls.CertificateVerificationError
	return errors.As(err, &verification)
}

func fatalTrust(err error) error {
	return fmt.Errorf("%w: check the host in url, or set ca_file to the authority that signed the server's certificate", err)
}

// codeOf gives ClickHouse's number of an error, 0 when it has none.
func codeOf(err error) int {
	var ours *ServerError
	if errors.As(err, &ours) {
		return ours.Code
	}
	var theirs *ch.Exception
	if errors.As(err, &theirs) {
		return int(theirs.Code)
	}
	return 0
}

// busy are codes of a server that may answer the same question later: limits,
// time, network, shutting down.
var busy = map[int]bool{
	159: true, // TIMEOUT_EXCEEDED
	209: true, // SOCKET_TIMEOUT
	210: true, // NETWORK_ERROR
	236: true, // ABORTED
	241: true, // MEMORY_LIMIT_EXCEEDED
	394: true, // QUERY_WAS_CANCELLED
	473: true, // DEADLOCK_AVOIDED
	999: true, // KEEPER_EXCEPTION
}

// classifyRead says what a failed question, or a statement that may be repeated,
// came to: transient when the server was not there or is busy, else fatal.
func classifyRead(err error) error {
	if err == nil {
		return nil
	}
	if untrusted(err) {
		return fatalTrust(err)
	}
	code := codeOf(err)
	if hint, dead := hopeless[code]; dead {
		return fmt.Errorf("%w: %s", err, hint)
	}
	if code == 0 || busy[code] || refusals[code] {
		return fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
	}
	return err
}
