package enrich

// Config of enrichment. Without any file it gives the parts of ARM ids and the
// classes of addresses.
type Config struct {
	// NamesFile is a CSV file that says whose addresses are: its first line names the
	// columns cidr and/or mac, and some of name, vnet, subnet, owner, tags. The longest
	// prefix wins, field by field; a mac speaks of the side where its network interface
	// is (source of outbound flows, destination of inbound ones) and wins over prefixes.
	// At most 64 MiB and 1,000,000 rows. Default none.
	NamesFile string `yaml:"names_file"`
	// CountryFile is a MaxMind DB file (.mmdb) with countries, at most 1 GiB.
	// Default none.
	CountryFile string `yaml:"country_file"`
	// ASNFile is a MaxMind DB file (.mmdb) with autonomous systems, at most 1
	// GiB. Default none.
	ASNFile string `yaml:"asn_file"`
}

// Files lists the files that are named.
func Files(c Config) []string {
	var paths []string
	for _, path := range []string{c.NamesFile, c.CountryFile, c.ASNFile} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	return paths
}
