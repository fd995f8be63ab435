// Package security holds the security checklist: every rule, and the tests that hold
// it. `make security` runs them; a test of this package looks that they exist, and
// that the user's page says the same.
//
// Beside the table there are tests of what no room can hold alone: how clients,
// servers and TLS are made anywhere in the tree, what is linked and under which
// licence, that a build can be repeated.
package security

import "strings"

// Line is one rule of the checklist.
type Line struct {
	ID   string
	Rule string
	// Later says what a rule concerns that does not exist yet; such a line has no tests
	// unless a part of it applies already.
	Later string
	// Tests that hold the rule, each as folder.Name.
	Tests []string
}

// Applies says whether the rule is about something that exists.
func (l Line) Applies() bool { return len(l.Tests) > 0 }

// Place divides the name of a test into its package's folder and its function.
func Place(test string) (folder, name string) {
	i := strings.LastIndexByte(test, '.')
	return test[:i], test[i+1:]
}

const console = "There is no console yet."

// Checklist is the whole list, in the order of its numbers.
var Checklist = []Line{
	{
		ID: "S1", Rule: "The URL of an event is compared, never followed; requests are built from the configuration.",
		Tests: []string{
			"pipeline/announce.TestHostileURLsAnnounceNothing", "pipeline/announce.TestNothingHereOpensConnections", "pipeline/announce.TestAccountsKeepTheirConfiguredName",
			"pipeline/announce.FuzzEvent", "pipeline/blob.TestHostileEventsConnectNowhere", "pipeline/blob.TestOddNamesAreNotRequested",
		},
	},
	{
		ID: "S2", Rule: "No redirect is followed; addresses of this machine and of private networks are refused after the name was resolved, unless configured.",
		Tests: []string{
			"pipeline/blob.TestRedirectsAreNotFollowed", "pipeline/blob.TestAddressesBehindAName", "pipeline/blob.TestOnlyTheEndpointIsDialled", "pipeline/blob.TestRebindingNames",
			"sinks/clickhouse.TestPasswordTravelsInAHeaderOnly", "cmd/internal/identity.TestRedirectOfTheAccountIsNotFollowed", "pipeline/source/eventhubs.TestWebSocketRedirect",
		},
	},
	{
		ID: "S3", Rule: "A key or token goes to the configured host and to no other.",
		Tests: []string{"pipeline/blob.TestCredentialsGoToTheirAccountOnly", "sinks/clickhouse.TestPasswordTravelsInAHeaderOnly", "cmd/internal/identity.TestTokenReachesTheAccount"},
	},
	{
		ID: "S4", Rule: "Depth, texts, members, tuples and records are bounded, and so is the memory that a bomb takes.",
		Tests: []string{"pipeline/decode.TestBombs", "pipeline/decode.TestReasons", "pipeline/decode.TestTooManyRejectsEndTheRange", "pipeline/decode.TestReaderKeepsMemoryConstant", "pipeline/blob.TestLargeRecordsGrowTheChunkUpToTheLimit", "cmd/internal/config.TestAnchors"},
	},
	{
		ID: "S5", Rule: "Invalid UTF-8, NUL and half surrogates go to quarantine and are never stored.",
		Tests: []string{"pipeline/decode.TestTexts", "pipeline/decode.TestReasons", "pipeline/decode.TestReaderTakesEveryShape", "pipeline/decode.TestRandomRegionsAgree", "pipeline/decode.FuzzDecode"},
	},
	{
		ID: "S6", Rule: "A number is digits that its column can hold, or it is refused.",
		Tests: []string{"pipeline/decode.TestNumbers", "pipeline/decode.TestTimes", "pipeline/decode.TestVersionNumbers"},
	},
	{
		ID: "S7", Rule: "What inflates is bounded in bytes and ratio while it streams; no length in the input is believed.",
		Tests: []string{"pipeline/decode.TestInflateBombs", "pipeline/decode.TestInflateStopsBombs", "pipeline/decode.TestOtherCompressionsAreNotInflated", "pipeline/broker.TestInflateBombs", "pipeline/broker.FuzzInflate", "pipeline/source/kafka.TestBombIsPassedOver"},
	},
	{
		ID: "S8", Rule: "Of a blob that is cut, whole records count; the rest waits, then goes to quarantine.",
		Tests: []string{"pipeline/blob.TestBodyCutAtEveryByte", "pipeline/blob.TestBlobCutAtEveryByte", "pipeline/decode.FuzzSplit", "pipeline/decode.TestCutRegionsAgree", "pipeline/shard.TestWaitingBlobGetsTooOld"},
	},
	{
		ID: "S9", Rule: "State has a budget; past it new keys fold into an overflow group, and totals stay exact.",
		Tests: []string{"operators/window.TestOverflowKeepsTotals", "operators/window.TestNamesAreForgotten", "cmd/internal/telemetry.TestSeriesAreBounded"},
	},
	{
		ID: "S10", Rule: "An event time outside of its blob's hour makes no partition and moves no watermark.",
		Tests: []string{"pipeline/shard.TestOutside", "pipeline/decode.TestTimes", "cmd/internal/quarantine.TestReplayKeepsTheBoundsOfTime"},
	},
	{
		ID: "S11", Rule: "Queues, logs, series and quarantine are bounded.",
		Tests: []string{"cmd/internal/telemetry.TestRepeatedLinesAreHeldBack", "cmd/internal/telemetry.TestKindsAreBounded", "deploy/local/process.TestLogFileIsBounded", "pipeline/source/lowwater.TestTrackerBlocksAtTheLimit", "pipeline/source/eventhubs.TestWaitsAtTheLimit", "pipeline/blob.TestBudgetIsWaitedFor", "cmd/internal/quarantine.TestReplaysAreBounded"},
	},
	{
		ID: "S12", Rule: "No secret is in any output: errors, logs of every level, metrics, traces, status, panics.",
		Tests: []string{
			"pipeline/secret.TestNoWayOfPrintingShowsIt", "pipeline/blob.TestErrorsHoldNoSecret", "pipeline/blob.TestIdentityErrorsAreScrubbed", "pipeline/blob.TestAccountFaultsAreReportedAtOnce",
			"sinks/clickhouse.TestSecretIsNeverShown", "sinks/clickhouse.TestPasswordTravelsInAHeaderOnly", "cmd/internal/assembly.TestFaultsShowNoSecret", "cmd/internal/config.TestCheckSecrets",
			"cmd/internal/identity.TestRefusals", "sinks/kafka.TestLogin", "pipeline/source/kafka.TestLogin", "cmd/millrace.TestNoCommandShowsASecret",
		},
	},
	{
		ID: "S13", Rule: "An error about a request never holds its query, where a SAS stands.",
		Tests: []string{"pipeline/blob.TestErrorsHoldNoSecret"},
	},
	{
		ID: "S14", Rule: "TLS is 1.2 or newer, and certificates are verified; there is no way to switch that off.",
		Tests: []string{"pipeline/blob.TestTLSIsVerified", "sinks/clickhouse.TestTLSIsVerified", "sinks/clickhouse.TestTLS", "pipeline/broker.TestTLSIsVerified", "pipeline/source/eventhubs.TestTLSIsVerified", "deploy/security.TestClientsAndServersHaveLimits"},
	},
	{
		ID: "S15", Rule: "The rights that are needed are documented, and enough.",
		Tests: []string{"sinks/clickhouse.TestLeastRightsAreEnough", "sinks/clickhouse.TestUsersOfEveryKind", "sinks/clickhouse.TestExamineBeforeSetup"},
	},
	{
		ID: "S16", Rule: "Identifiers of SQL are plain words in backquotes; values never become statements.",
		Tests: []string{"schemas.FuzzIdentifier", "schemas.FuzzQuoteString", "sinks/clickhouse.TestProbeQuotesHostileMACs", "cmd/internal/config.TestHostileIdentifiers", "cmd/millrace.TestHostileArgumentsStayValues"},
	},
	{ID: "S17", Rule: "Queries of the console are read-only and bounded.", Later: console},
	{ID: "S18", Rule: "The console asks who somebody is, on every route.", Later: console},
	{
		ID: "S19", Rule: "No other site can make a browser change anything here.", Later: console + " The demo's control page is the only one that changes something.",
		Tests: []string{"cmd/internal/demo.TestControlStops"},
	},
	{ID: "S20", Rule: "What logs hold is never markup.", Later: console},
	{ID: "S21", Rule: "Panels of Grafana hold no markup and lead to their own origin.", Later: "There are no dashboards yet."},
	{
		ID: "S22", Rule: "A cell of CSV is no formula, and no text holds control characters.",
		Tests: []string{"schemas/rowtext.TestCSVIsNoFormula", "schemas/rowtext.TestJSONHoldsNoControls"},
	},
	{
		ID: "S23", Rule: "A line of the log is one line, whatever a blob or a rule is named.",
		Tests: []string{"cmd/internal/telemetry.TestLinesAreOneLine"},
	},
	{
		ID: "S24", Rule: "Directories of blobs are never left, by links, names or races.",
		Tests: []string{"pipeline/blob.TestDirectoryKeepsToItsFiles", "pipeline/blob.TestDirectoryNames", "pipeline/blob.TestDirectoryRace", "pipeline/blob.TestFiftyHostileNames"},
	},
	{
		ID: "S25", Rule: "State is its owner's alone, whatever the umask; a folder that others may write to is refused.",
		Tests: []string{"pipeline/ledger.TestFilesAreTheOwnersAlone", "pipeline/ledger.TestDirectoryOfOthersIsRefused", "pipeline/ledger.TestDirectoryHasOneOwner", "pipeline/source/eventhubs.TestPositionsAreTheOwnersAlone"},
	},
	{
		ID: "S26", Rule: "Pages listen on loopback unless told otherwise; there is no profiler, and no secret on a command line.",
		Tests: []string{"cmd/internal/telemetry.TestBoundToLoopback", "cmd/internal/telemetry.TestOnlyReadsOfKnownPaths", "cmd/internal/demo.TestControlBesideSlowClients", "cmd/millrace-clickhouse.TestParseOptionsReadsTheEnvironment"},
	},
	{
		ID: "S27", Rule: "A page answers beside a thousand slow clients.",
		Tests: []string{"cmd/internal/telemetry.TestSlowClientsKeepNobodyOut", "cmd/internal/telemetry.TestSlowClientsAreCutOff", "cmd/internal/telemetry.TestConnectionsAreBounded", "cmd/internal/telemetry.TestReadyHasATimeout", "cmd/internal/demo.TestControlBesideSlowClients", "deploy/security.TestClientsAndServersHaveLimits"},
	},
	{
		ID: "S28", Rule: "The length of a frame is looked at before memory is taken for it.",
		Tests: []string{"pipeline/source/eventhubs/emulator/internal/wire.TestReadFrameLimits", "pipeline/source/eventhubs/emulator/internal/wire.FuzzFrame", "pipeline/source/eventhubs/emulator.TestFrameLimit", "pipeline/source/eventhubs/emulator.TestMessageSizeLimit", "pipeline/source/eventhubs/emulator.FuzzConn", "pipeline/source/eventhubs.TestHugeFramesTakeNoMemory", "pipeline/broker.TestHugeAnswersTakeNoMemory"},
	},
	{
		ID: "S29", Rule: "Snapshots and manifests carry length, checksum and version; damage and other versions are refused.",
		Tests: []string{"pipeline/ledger.FuzzLedger", "pipeline/ledger.FuzzManifest", "pipeline/ledger.FuzzOwner", "pipeline/ledger.TestOtherVersionIsRefused", "pipeline/ledger.TestDamagedBaseFallsBack", "operators/window.FuzzRestore", "operators/window.TestRestoreRefusesDamage", "operators/window.TestRestoreOfSealedDamage", "deploy/security.TestFewPlacesMayDoMore"},
	},
	{
		ID: "S30", Rule: "What is linked is pinned, listed and licensed; a build can be repeated.",
		Tests: []string{"deploy/security.TestModulesAreFixed", "deploy/security.TestToolsArePinned", "deploy/security.TestLicenses", "deploy/security.TestBuildsAreEqual"},
	},
	{
		ID: "S31", Rule: "The program says its version and commit; a release has checksums.",
		Tests: []string{"deploy/security.TestBuildsAreEqual"},
	},
	{
		ID: "S32", Rule: "A panic over input costs one record; one in the ledger ends the program.",
		Tests: []string{"pipeline/decode.TestPanicIsContained", "pipeline/engine.TestPanicInTheLedgerEndsTheProgram", "deploy/security.TestFewPlacesMayDoMore"},
	},
	{
		ID: "S33", Rule: "Every call to a service has a limit of time, but for an INSERT, which has a watchdog.",
		Tests: []string{"deploy/security.TestClientsAndServersHaveLimits", "sinks/clickhouse.TestWatch", "sinks/clickhouse.TestWatchCutsOffAnInsert", "sinks/clickhouse.TestSilentServerHoldsNobody", "pipeline/blob.TestIdleAndSlowBodies", "pipeline/source/eventhubs.TestUnreachable"},
	},
}
