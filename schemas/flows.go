package schemas

import "github.com/apache/arrow/go/v17/arrow"

// Closed word lists of the flow row. A value's place in its list is the code
// that record batches carry, so the order is part of the format: only append.
var (
	Clouds     = []string{"azure", "aws", "gcp"}
	Formats    = []string{"vnet-4", "nsg-1", "nsg-2"}
	Directions = []string{"inbound", "outbound"}
	States     = []string{"begin", "continuing", "end", "denied", "unknown"}
	Actions    = []string{"allowed", "denied"}
	RuleKinds  = []string{"default", "user", "admin", "platform", "unspecified"}
)

// Codes of the word lists above.
const (
	CloudAzure uint8 = 0

	FormatVNet4 uint8 = 0
	FormatNSG1  uint8 = 1
	FormatNSG2  uint8 = 2

	DirectionInbound  uint8 = 0
	DirectionOutbound uint8 = 1

	StateBegin      uint8 = 0
	StateContinuing uint8 = 1
	StateEnd        uint8 = 2
	StateDenied     uint8 = 3
	StateUnknown    uint8 = 4

	ActionAllowed uint8 = 0
	ActionDenied  uint8 = 1

	RuleDefault     uint8 = 0
	RuleUser        uint8 = 1
	RuleAdmin       uint8 = 2
	RulePlatform    uint8 = 3
	RuleUnspecified uint8 = 4
)

// Flows is the table of flow rows: one row a tuple, as logged.
var Flows = Table{
	Name: "flows",
	Columns: []Column{
		{"time", TimeMS, "DateTime64(3, 'UTC')", "DoubleDelta, ZSTD(1)", "ms UTC", "When the flow was in this state.", "tuple field 1"},
		{"cloud", Word, "LowCardinality(String)", "", "", "Cloud that wrote the log: azure, aws, gcp.", "format"},
		{"format", Word, "LowCardinality(String)", "", "", "Log format and version: vnet-4, nsg-1, nsg-2.", "record"},
		{"mac", Name, "LowCardinality(String)", "", "", "MAC address of the network interface that logged the flow, 12 upper-case hex digits.", "record macAddress"},
		{"src_ip", Address, "IPv6", "ZSTD(1)", "", "Side that opened the connection; IPv4 is mapped into ::ffff:0:0/96.", "tuple field 2"},
		{"dst_ip", Address, "IPv6", "ZSTD(1)", "", "Side that was connected to; IPv4 is mapped into ::ffff:0:0/96.", "tuple field 3"},
		{"src_port", arrow.PrimitiveTypes.Uint16, "UInt16", "T64, ZSTD(1)", "", "Source port, 0 for protocols without ports.", "tuple field 4"},
		{"dst_port", arrow.PrimitiveTypes.Uint16, "UInt16", "T64, ZSTD(1)", "", "Destination port, 0 for protocols without ports.", "tuple field 5"},
		{"protocol", arrow.PrimitiveTypes.Uint8, "UInt8", "ZSTD(1)", "", "IANA protocol number.", "tuple field 6"},
		{"direction", Word, "LowCardinality(String)", "", "", "inbound or outbound as the interface saw it.", "tuple field 7"},
		{"state", Word, "LowCardinality(String)", "", "", "begin, continuing, end, denied, unknown.", "tuple field 8 or 9"},
		{"action", Word, "LowCardinality(String)", "", "", "allowed or denied.", "tuple field 8"},
		{"encryption", Name, "LowCardinality(String)", "", "", "Encryption value as logged; empty where the format has none.", "vnet tuple field 9"},
		{"packets_sent", arrow.PrimitiveTypes.Uint64, "UInt64", "T64, ZSTD(1)", "packets", "Packets source to destination since the flow's previous tuple; 0 when absent.", "tuple field 10"},
		{"bytes_sent", arrow.PrimitiveTypes.Uint64, "UInt64", "T64, ZSTD(1)", "bytes", "Bytes source to destination since the flow's previous tuple; 0 when absent.", "tuple field 11"},
		{"packets_received", arrow.PrimitiveTypes.Uint64, "UInt64", "T64, ZSTD(1)", "packets", "Packets destination to source since the flow's previous tuple; 0 when absent.", "tuple field 12"},
		{"bytes_received", arrow.PrimitiveTypes.Uint64, "UInt64", "T64, ZSTD(1)", "bytes", "Bytes destination to source since the flow's previous tuple; 0 when absent.", "tuple field 13"},
		{"acl_id", Name, "LowCardinality(String)", "", "", "Id of the access list that decided, as logged.", "aclID or systemId"},
		{"rule", Name, "LowCardinality(String)", "", "", "Name of the rule that decided, as logged.", "rule"},
		{"rule_kind", Word, "LowCardinality(String)", "", "", "default, user, admin, platform, unspecified: read from the rule's name.", "rule"},
		{"flow_log", Name, "LowCardinality(String)", "", "", "ARM id of the flow log.", "flowLogResourceID"},
		{"target", Name, "LowCardinality(String)", "", "", "ARM id of what is logged.", "targetResourceID or resourceId"},
		{"blob", Name, "LowCardinality(String)", "", "", "Blob of the tuple: account/container/path.", "address"},
		{"generation", arrow.PrimitiveTypes.Uint32, "UInt32", "ZSTD(1)", "", "How often the blob had been rewritten when the tuple was read.", "address"},
		{"record_offset", arrow.PrimitiveTypes.Uint64, "UInt64", "DoubleDelta, ZSTD(1)", "bytes", "Offset of the tuple's record in the blob.", "address"},
		{"ordinal", arrow.PrimitiveTypes.Uint32, "UInt32", "DoubleDelta, ZSTD(1)", "", "Place of the tuple in its record, from 0.", "address"},
		{"batch_id", arrow.PrimitiveTypes.Uint64, "UInt64", "ZSTD(1)", "", "Commit that landed the row: ledger (16 bits), shard (12), sequence (36).", "ledger"},
	},
	Engine:      "MergeTree",
	PartitionBy: "toYYYYMMDD(time)",
	OrderBy:     "mac, time",
	TimeColumn:  "time",
	MACColumn:   "mac",
	Indexes:     []string{"batch_id_range batch_id TYPE minmax GRANULARITY 4"},
	Comment:     "Flow rows as logged: one row a tuple. A flow that both ends log appears twice.",
}

// Quarantine is the table of input that could not become rows.
var Quarantine = Table{
	Name: "quarantine",
	Columns: []Column{
		{"time", TimeMS, "DateTime64(3, 'UTC')", "", "ms UTC", "Hour of the blob's path, or when the unit was read for blobs without one.", "blob path"},
		{"reason", Name, "LowCardinality(String)", "", "", "Why it is here: a code from a closed list.", "decoder"},
		{"detail", arrow.BinaryTypes.String, "String", "", "", "What exactly was wrong.", "decoder"},
		{"scope", Name, "LowCardinality(String)", "", "", "tuple, record or range.", "decoder"},
		{"blob", Name, "LowCardinality(String)", "", "", "Blob: account/container/path.", "address"},
		{"generation", arrow.PrimitiveTypes.Uint32, "UInt32", "", "", "How often the blob had been rewritten.", "address"},
		{"record_offset", arrow.PrimitiveTypes.Uint64, "UInt64", "", "bytes", "Offset of the record, or of the range, in the blob.", "address"},
		{"ordinal", arrow.PrimitiveTypes.Uint32, "UInt32", "", "", "Place of the tuple in its record; 0 for a record or range.", "address"},
		{"length", arrow.PrimitiveTypes.Uint64, "UInt64", "", "bytes", "Length of the record or range from record_offset on; for a tuple that of its text.", "address"},
		{"excerpt", arrow.BinaryTypes.String, "String", "", "", "First 256 bytes of what was refused, invalid UTF-8 replaced.", "blob"},
		{"batch_id", arrow.PrimitiveTypes.Uint64, "UInt64", "", "", "Commit that recorded it.", "ledger"},
	},
	Engine:      "MergeTree",
	PartitionBy: "toYYYYMMDD(time)",
	OrderBy:     "reason, blob, record_offset, ordinal",
	TimeColumn:  "time",
	Comment:     "Input that could not become rows, with its address and the reason. Read it again with millrace quarantine replay.",
}

// Batches lists the byte ranges behind each commit, landed with each checkpoint;
// a lost ledger's offsets can be rebuilt from it.
var Batches = Table{
	Name: "batches",
	Columns: []Column{
		{"batch_id", arrow.PrimitiveTypes.Uint64, "UInt64", "", "", "Commit: ledger (16 bits), shard (12), sequence (36).", "ledger"},
		{"committed", TimeMS, "DateTime64(3, 'UTC')", "", "ms UTC", "When the commit was written to the ledger.", "ledger"},
		{"blob", Name, "LowCardinality(String)", "", "", "Blob: account/container/path.", "unit"},
		{"generation", arrow.PrimitiveTypes.Uint32, "UInt32", "", "", "How often the blob had been rewritten.", "unit"},
		{"offset", arrow.PrimitiveTypes.Uint64, "UInt64", "", "bytes", "First byte of the range in the blob.", "unit"},
		{"length", arrow.PrimitiveTypes.Uint64, "UInt64", "", "bytes", "Length of the range.", "unit"},
		{"hash", arrow.BinaryTypes.String, "String", "", "", "xxh3-128 of the range, hex.", "unit"},
		{"rows", arrow.PrimitiveTypes.Uint64, "UInt64", "", "rows", "Rows that the range became and that landed.", "unit"},
		{"quarantined", arrow.PrimitiveTypes.Uint64, "UInt64", "", "", "Entries that the range left in quarantine.", "unit"},
		{"filtered", arrow.PrimitiveTypes.Uint64, "UInt64", "", "rows", "Rows of the range that filters left out.", "unit"},
	},
	Engine:      "ReplacingMergeTree",
	PartitionBy: "toYYYYMM(committed)",
	OrderBy:     "batch_id, blob, generation, offset",
	TimeColumn:  "committed",
	Comment:     "Byte ranges behind each commit. Written again after a restart: read it with FINAL.",
}

// Ledgers registers every ledger that ever wrote to the target.
var Ledgers = Table{
	Name: "ledgers",
	Columns: []Column{
		{"ledger", arrow.PrimitiveTypes.Uint16, "UInt16", "", "", "Ledger id: the top 16 bits of batch_id.", "ledger"},
		{"name", arrow.BinaryTypes.String, "String", "", "", "Random name that the ledger carries on disk.", "ledger"},
		{"shards", arrow.PrimitiveTypes.Uint16, "UInt16", "", "", "Number of shards.", "ledger"},
		{"created", TimeMS, "DateTime64(3, 'UTC')", "", "ms UTC", "When it was registered.", "ledger"},
		{"resharded_seq", arrow.PrimitiveTypes.Uint64, "UInt64", "", "", "Batches up to this sequence number were written before the number of shards was changed last; 0: it never was.", "ledger"},
	},
	Engine:     "MergeTree",
	OrderBy:    "ledger",
	TimeColumn: "created",
	// The order of INSERTs decides who owns an id that two processes asked for.
	Settings: []string{"enable_block_number_column=1"},
	Comment:  "Ledgers that write to this database. One row each.",
}

// Fence holds the epochs of shard owners: an INSERT of an older epoch is refused.
var Fence = Table{
	Name: "fence",
	Columns: []Column{
		{"ledger", arrow.PrimitiveTypes.Uint16, "UInt16", "", "", "Ledger id.", "ledger"},
		{"shard", arrow.PrimitiveTypes.Uint16, "UInt16", "", "", "Shard.", "ledger"},
		{"epoch", arrow.PrimitiveTypes.Uint64, "UInt64", "", "", "Epoch of the shard's owner; the highest one rules.", "ledger"},
		{"created", TimeMS, "DateTime64(3, 'UTC')", "", "ms UTC", "When the owner took over.", "ledger"},
	},
	Engine:     "MergeTree",
	OrderBy:    "ledger, shard, epoch",
	TimeColumn: "created",
	Comment:    "Epochs of shard owners.",
}

// Forgotten lists what people have deleted on purpose, and told of: its rows are
// expired, not lost, and no recovery lands them again.
var Forgotten = Table{
	Name: "forgotten",
	Columns: []Column{
		{"id", arrow.BinaryTypes.String, "String", "", "", "Random name of the record, to take it back by.", "millrace forget"},
		{"created", TimeMS, "DateTime64(3, 'UTC')", "", "ms UTC", "When it was told.", "millrace forget"},
		{"table", arrow.BinaryTypes.String, "String", "", "", "Table whose rows are gone.", "millrace forget"},
		{"from", TimeMS, "DateTime64(3, 'UTC')", "", "ms UTC", "First instant of the first day, by the time that the table is divided by.", "millrace forget"},
		{"to", TimeMS, "DateTime64(3, 'UTC')", "", "ms UTC", "First instant behind the last day.", "millrace forget"},
		{"who", arrow.BinaryTypes.String, "String", "", "", "Who told it.", "millrace forget"},
		{"why", arrow.BinaryTypes.String, "String", "", "", "Why the rows were deleted.", "millrace forget"},
		{"undone", arrow.PrimitiveTypes.Uint8, "UInt8", "", "", "1: the record of this id was taken back.", "millrace forget"},
	},
	Engine:     "MergeTree",
	OrderBy:    "created, id",
	TimeColumn: "created",
	Comment:    "Days of tables that people have deleted. See millrace forget.",
}
