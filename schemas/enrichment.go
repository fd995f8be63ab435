package schemas

import (
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
)

// AddressClasses is the closed list of the columns src_class and dst_class; a
// value's place in it is its code, as with the lists of the flow row.
var AddressClasses = []string{
	"public", "private", "cgnat", "loopback", "link_local", "multicast", "broadcast", "unspecified", "azure_platform",
	"documentation", "reserved",
}

// Codes of AddressClasses.
const (
	ClassPublic uint8 = iota
	ClassPrivate
	ClassCGNAT
	ClassLoopback
	ClassLinkLocal
	ClassMulticast
	ClassBroadcast
	ClassUnspecified
	ClassAzurePlatform
	ClassDocumentation
	ClassReserved
)

// Enrichment are the columns that enrichment puts behind those of Flows, so that a
// row without them begins as one with them. They are empty, or 0, where nothing is
// known. Tables have them only when enrichment is configured: empty, they cost a
// third more time to land, and a tenth even where the target fills them in by
// itself (BenchmarkLandEnrichment in sinks/clickhouse).
var Enrichment = []Column{
	named("subscription", "Subscription of what is logged.", "target"),
	named("resource_group", "Resource group of what is logged.", "target"),
	named("vnet", "Virtual network of what is logged, where its id names one.", "target"),
	named("subnet", "Subnet of what is logged, where its id names one.", "target"),
	named("nic", "Network interface of what is logged, where its id names one.", "target"),
	{"src_class", Word, "LowCardinality(String)", "", "", sideMeaning("Class of", "source") + " public, private, cgnat, loopback and so on.", "src_ip"},
	{"dst_class", Word, "LowCardinality(String)", "", "", sideMeaning("Class of", "destination") + " public, private, cgnat, loopback and so on.", "dst_ip"},
	named("src_name", sideMeaning("Name of", "source"), "names file"),
	named("dst_name", sideMeaning("Name of", "destination"), "names file"),
	named("src_vnet", sideMeaning("Virtual network of", "source"), "names file"),
	named("dst_vnet", sideMeaning("Virtual network of", "destination"), "names file"),
	named("src_subnet", sideMeaning("Subnet of", "source"), "names file"),
	named("dst_subnet", sideMeaning("Subnet of", "destination"), "names file"),
	named("src_owner", sideMeaning("Owner of", "source"), "names file"),
	named("dst_owner", sideMeaning("Owner of", "destination"), "names file"),
	named("src_tags", sideMeaning("Tags of", "source"), "names file"),
	named("dst_tags", sideMeaning("Tags of", "destination"), "names file"),
	named("src_country", sideMeaning("Country of", "source")+" ISO 3166 alpha-2.", "country file"),
	named("dst_country", sideMeaning("Country of", "destination")+" ISO 3166 alpha-2.", "country file"),
	{"src_asn", arrow.PrimitiveTypes.Uint32, "UInt32", "ZSTD(1)", "", sideMeaning("Autonomous system of", "source") + " 0 when unknown.", "asn file"},
	{"dst_asn", arrow.PrimitiveTypes.Uint32, "UInt32", "ZSTD(1)", "", sideMeaning("Autonomous system of", "destination") + " 0 when unknown.", "asn file"},
	named("src_as_org", sideMeaning("Organization behind the autonomous system of", "source"), "asn file"),
	named("dst_as_org", sideMeaning("Organization behind the autonomous system of", "destination"), "asn file"),
}

func named(name, meaning, source string) Column {
	return Column{Name: name, Arrow: Name, ClickHouse: "LowCardinality(String)", Meaning: meaning, Source: source}
}

func sideMeaning(what, side string) string { return what + " the " + side + " address." }

// EnrichedFlows is the table of flow rows with enrichment: Flows, then Enrichment.
var EnrichedFlows = enrichedFlows()

func enrichedFlows() Table {
	t := Flows
	t.Columns, t.Required = slices.Concat(Flows.Columns, Enrichment), len(Flows.Columns)
	return t
}
