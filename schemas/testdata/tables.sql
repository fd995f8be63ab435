CREATE TABLE IF NOT EXISTS `millrace`.`flows`
(
    `time` DateTime64(3, 'UTC') COMMENT 'When the flow was in this state. Unit: ms UTC. Source: tuple field 1.' CODEC(DoubleDelta, ZSTD(1)),
    `cloud` LowCardinality(String) COMMENT 'Cloud that wrote the log: azure, aws, gcp. Source: format.',
    `format` LowCardinality(String) COMMENT 'Log format and version: vnet-4, nsg-1, nsg-2. Source: record.',
    `mac` LowCardinality(String) COMMENT 'MAC address of the network interface that logged the flow, 12 upper-case hex digits. Source: record macAddress.',
    `src_ip` IPv6 COMMENT 'Side that opened the connection; IPv4 is mapped into ::ffff:0:0/96. Source: tuple field 2.' CODEC(ZSTD(1)),
    `dst_ip` IPv6 COMMENT 'Side that was connected to; IPv4 is mapped into ::ffff:0:0/96. Source: tuple field 3.' CODEC(ZSTD(1)),
    `src_port` UInt16 COMMENT 'Source port, 0 for protocols without ports. Source: tuple field 4.' CODEC(T64, ZSTD(1)),
    `dst_port` UInt16 COMMENT 'Destination port, 0 for protocols without ports. Source: tuple field 5.' CODEC(T64, ZSTD(1)),
    `protocol` UInt8 COMMENT 'IANA protocol number. Source: tuple field 6.' CODEC(ZSTD(1)),
    `direction` LowCardinality(String) COMMENT 'inbound or outbound as the interface saw it. Source: tuple field 7.',
    `state` LowCardinality(String) COMMENT 'begin, continuing, end, denied, unknown. Source: tuple field 8 or 9.',
    `action` LowCardinality(String) COMMENT 'allowed or denied. Source: tuple field 8.',
    `encryption` LowCardinality(String) COMMENT 'Encryption value as logged; empty where the format has none. Source: vnet tuple field 9.',
    `packets_sent` UInt64 COMMENT 'Packets source to destination since the flow\'s previous tuple; 0 when absent. Unit: packets. Source: tuple field 10.' CODEC(T64, ZSTD(1)),
    `bytes_sent` UInt64 COMMENT 'Bytes source to destination since the flow\'s previous tuple; 0 when absent. Unit: bytes. Source: tuple field 11.' CODEC(T64, ZSTD(1)),
    `packets_received` UInt64 COMMENT 'Packets destination to source since the flow\'s previous tuple; 0 when absent. Unit: packets. Source: tuple field 12.' CODEC(T64, ZSTD(1)),
    `bytes_received` UInt64 COMMENT 'Bytes destination to source since the flow\'s previous tuple; 0 when absent. Unit: bytes. Source: tuple field 13.' CODEC(T64, ZSTD(1)),
    `acl_id` LowCardinality(String) COMMENT 'Id of the access list that decided, as logged. Source: aclID or systemId.',
    `rule` LowCardinality(String) COMMENT 'Name of the rule that decided, as logged. Source: rule.',
    `rule_kind` LowCardinality(String) COMMENT 'default, user, admin, platform, unspecified: read from the rule\'s name. Source: rule.',
    `flow_log` LowCardinality(String) COMMENT 'ARM id of the flow log. Source: flowLogResourceID.',
    `target` LowCardinality(String) COMMENT 'ARM id of what is logged. Source: targetResourceID or resourceId.',
    `blob` LowCardinality(String) COMMENT 'Blob of the tuple: account/container/path. Source: address.',
    `generation` UInt32 COMMENT 'How often the blob had been rewritten when the tuple was read. Source: address.' CODEC(ZSTD(1)),
    `record_offset` UInt64 COMMENT 'Offset of the tuple\'s record in the blob. Unit: bytes. Source: address.' CODEC(DoubleDelta, ZSTD(1)),
    `ordinal` UInt32 COMMENT 'Place of the tuple in its record, from 0. Source: address.' CODEC(DoubleDelta, ZSTD(1)),
    `batch_id` UInt64 COMMENT 'Commit that landed the row: ledger (16 bits), shard (12), sequence (36). Source: ledger.' CODEC(ZSTD(1)),
    INDEX batch_id_range batch_id TYPE minmax GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(time)
ORDER BY (mac, time)
SETTINGS fsync_after_insert=1, fsync_part_directory=1, non_replicated_deduplication_window=0
COMMENT 'Flow rows as logged: one row a tuple. A flow that both ends log appears twice.';

CREATE TABLE IF NOT EXISTS `millrace`.`quarantine`
(
    `time` DateTime64(3, 'UTC') COMMENT 'Hour of the blob\'s path, or when the unit was read for blobs without one. Unit: ms UTC. Source: blob path.',
    `reason` LowCardinality(String) COMMENT 'Why it is here: a code from a closed list. Source: decoder.',
    `detail` String COMMENT 'What exactly was wrong. Source: decoder.',
    `scope` LowCardinality(String) COMMENT 'tuple, record or range. Source: decoder.',
    `blob` LowCardinality(String) COMMENT 'Blob: account/container/path. Source: address.',
    `generation` UInt32 COMMENT 'How often the blob had been rewritten. Source: address.',
    `record_offset` UInt64 COMMENT 'Offset of the record, or of the range, in the blob. Unit: bytes. Source: address.',
    `ordinal` UInt32 COMMENT 'Place of the tuple in its record; 0 for a record or range. Source: address.',
    `length` UInt64 COMMENT 'Length of the record or range from record_offset on; for a tuple that of its text. Unit: bytes. Source: address.',
    `excerpt` String COMMENT 'First 256 bytes of what was refused, invalid UTF-8 replaced. Source: blob.',
    `batch_id` UInt64 COMMENT 'Commit that recorded it. Source: ledger.'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(time)
ORDER BY (reason, blob, record_offset, ordinal)
SETTINGS fsync_after_insert=1, fsync_part_directory=1, non_replicated_deduplication_window=0
COMMENT 'Input that could not become rows, with its address and the reason. Read it again with millrace quarantine replay.';

CREATE TABLE IF NOT EXISTS `millrace`.`batches`
(
    `batch_id` UInt64 COMMENT 'Commit: ledger (16 bits), shard (12), sequence (36). Source: ledger.',
    `committed` DateTime64(3, 'UTC') COMMENT 'When the commit was written to the ledger. Unit: ms UTC. Source: ledger.',
    `blob` LowCardinality(String) COMMENT 'Blob: account/container/path. Source: unit.',
    `generation` UInt32 COMMENT 'How often the blob had been rewritten. Source: unit.',
    `offset` UInt64 COMMENT 'First byte of the range in the blob. Unit: bytes. Source: unit.',
    `length` UInt64 COMMENT 'Length of the range. Unit: bytes. Source: unit.',
    `hash` String COMMENT 'xxh3-128 of the range, hex. Source: unit.',
    `rows` UInt64 COMMENT 'Rows that the range became and that landed. Unit: rows. Source: unit.',
    `quarantined` UInt64 COMMENT 'Entries that the range left in quarantine. Source: unit.',
    `filtered` UInt64 COMMENT 'Rows of the range that filters left out. Unit: rows. Source: unit.'
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(committed)
ORDER BY (batch_id, blob, generation, offset)
SETTINGS fsync_after_insert=1, fsync_part_directory=1, non_replicated_deduplication_window=0
COMMENT 'Byte ranges behind each commit. Written again after a restart: read it with FINAL.';

CREATE TABLE IF NOT EXISTS `millrace`.`ledgers`
(
    `ledger` UInt16 COMMENT 'Ledger id: the top 16 bits of batch_id. Source: ledger.',
    `name` String COMMENT 'Random name that the ledger carries on disk. Source: ledger.',
    `shards` UInt16 COMMENT 'Number of shards. Source: ledger.',
    `created` DateTime64(3, 'UTC') COMMENT 'When it was registered. Unit: ms UTC. Source: ledger.',
    `resharded_seq` UInt64 COMMENT 'Batches up to this sequence number were written before the number of shards was changed last; 0: it never was. Source: ledger.'
)
ENGINE = MergeTree
ORDER BY (ledger)
SETTINGS fsync_after_insert=1, fsync_part_directory=1, non_replicated_deduplication_window=0, enable_block_number_column=1
COMMENT 'Ledgers that write to this database. One row each.';

CREATE TABLE IF NOT EXISTS `millrace`.`fence`
(
    `ledger` UInt16 COMMENT 'Ledger id. Source: ledger.',
    `shard` UInt16 COMMENT 'Shard. Source: ledger.',
    `epoch` UInt64 COMMENT 'Epoch of the shard\'s owner; the highest one rules. Source: ledger.',
    `created` DateTime64(3, 'UTC') COMMENT 'When the owner took over. Unit: ms UTC. Source: ledger.'
)
ENGINE = MergeTree
ORDER BY (ledger, shard, epoch)
SETTINGS fsync_after_insert=1, fsync_part_directory=1, non_replicated_deduplication_window=0
COMMENT 'Epochs of shard owners.';

CREATE TABLE IF NOT EXISTS `millrace`.`forgotten`
(
    `id` String COMMENT 'Random name of the record, to take it back by. Source: millrace forget.',
    `created` DateTime64(3, 'UTC') COMMENT 'When it was told. Unit: ms UTC. Source: millrace forget.',
    `table` String COMMENT 'Table whose rows are gone. Source: millrace forget.',
    `from` DateTime64(3, 'UTC') COMMENT 'First instant of the first day, by the time that the table is divided by. Unit: ms UTC. Source: millrace forget.',
    `to` DateTime64(3, 'UTC') COMMENT 'First instant behind the last day. Unit: ms UTC. Source: millrace forget.',
    `who` String COMMENT 'Who told it. Source: millrace forget.',
    `why` String COMMENT 'Why the rows were deleted. Source: millrace forget.',
    `undone` UInt8 COMMENT '1: the record of this id was taken back. Source: millrace forget.'
)
ENGINE = MergeTree
ORDER BY (created, id)
SETTINGS fsync_after_insert=1, fsync_part_directory=1, non_replicated_deduplication_window=0
COMMENT 'Days of tables that people have deleted. See millrace forget.';

-- with enrichment, flows also has `subscription` LowCardinality(String) COMMENT 'Subscription of what is logged. Source: target.'
-- with enrichment, flows also has `resource_group` LowCardinality(String) COMMENT 'Resource group of what is logged. Source: target.'
-- with enrichment, flows also has `vnet` LowCardinality(String) COMMENT 'Virtual network of what is logged, where its id names one. Source: target.'
-- with enrichment, flows also has `subnet` LowCardinality(String) COMMENT 'Subnet of what is logged, where its id names one. Source: target.'
-- with enrichment, flows also has `nic` LowCardinality(String) COMMENT 'Network interface of what is logged, where its id names one. Source: target.'
-- with enrichment, flows also has `src_class` LowCardinality(String) COMMENT 'Class of the source address. public, private, cgnat, loopback and so on. Source: src_ip.'
-- with enrichment, flows also has `dst_class` LowCardinality(String) COMMENT 'Class of the destination address. public, private, cgnat, loopback and so on. Source: dst_ip.'
-- with enrichment, flows also has `src_name` LowCardinality(String) COMMENT 'Name of the source address. Source: names file.'
-- with enrichment, flows also has `dst_name` LowCardinality(String) COMMENT 'Name of the destination address. Source: names file.'
-- with enrichment, flows also has `src_vnet` LowCardinality(String) COMMENT 'Virtual network of the source address. Source: names file.'
-- with enrichment, flows also has `dst_vnet` LowCardinality(String) COMMENT 'Virtual network of the destination address. Source: names file.'
-- with enrichment, flows also has `src_subnet` LowCardinality(String) COMMENT 'Subnet of the source address. Source: names file.'
-- with enrichment, flows also has `dst_subnet` LowCardinality(String) COMMENT 'Subnet of the destination address. Source: names file.'
-- with enrichment, flows also has `src_owner` LowCardinality(String) COMMENT 'Owner of the source address. Source: names file.'
-- with enrichment, flows also has `dst_owner` LowCardinality(String) COMMENT 'Owner of the destination address. Source: names file.'
-- with enrichment, flows also has `src_tags` LowCardinality(String) COMMENT 'Tags of the source address. Source: names file.'
-- with enrichment, flows also has `dst_tags` LowCardinality(String) COMMENT 'Tags of the destination address. Source: names file.'
-- with enrichment, flows also has `src_country` LowCardinality(String) COMMENT 'Country of the source address. ISO 3166 alpha-2. Source: country file.'
-- with enrichment, flows also has `dst_country` LowCardinality(String) COMMENT 'Country of the destination address. ISO 3166 alpha-2. Source: country file.'
-- with enrichment, flows also has `src_asn` UInt32 COMMENT 'Autonomous system of the source address. 0 when unknown. Source: asn file.' CODEC(ZSTD(1))
-- with enrichment, flows also has `dst_asn` UInt32 COMMENT 'Autonomous system of the destination address. 0 when unknown. Source: asn file.' CODEC(ZSTD(1))
-- with enrichment, flows also has `src_as_org` LowCardinality(String) COMMENT 'Organization behind the autonomous system of the source address. Source: asn file.'
-- with enrichment, flows also has `dst_as_org` LowCardinality(String) COMMENT 'Organization behind the autonomous system of the destination address. Source: asn file.'

CREATE OR REPLACE VIEW `millrace`.`flows_readable` AS
SELECT * REPLACE (
    replaceRegexpOne(IPv6NumToString(src_ip), '^::ffff:([0-9.]+)$', '\\1') AS src_ip,
    replaceRegexpOne(IPv6NumToString(dst_ip), '^::ffff:([0-9.]+)$', '\\1') AS dst_ip)
FROM flows
COMMENT 'Flow rows with addresses as text, IPv4 dotted.';
