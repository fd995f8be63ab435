package local

// PartCountries is a file of the countries of addresses, for tests of enrichment
// and, where it is there, for the demo. It is in the public domain (CC0).
const PartCountries = "countries"

// EnvCountries names a MaxMind DB file of the user's own instead.
const EnvCountries = "MILLRACE_COUNTRIES"

const countriesVersion = "2.3.2026061719"

func countriesPart() Part {
	return Part{
		Name:    PartCountries,
		Package: "@ip-location-db/geo-whois-asn-country-mmdb", Version: countriesVersion,
		Checksum: "sha512-xemBDNQl4mCYDuVbqe3jKGKsVDykZGkfvebhtOh/3VGLadq8vsp7t7ontpMUt3hH7sAGT0eLDyJ99SV+0waxZg==",
		Download: 7_610_169, Installed: 7_841_291,
		Env:     EnvCountries,
		WayOut:  "set MILLRACE_COUNTRIES=path to an .mmdb file with countries that you have",
		tool:    toolNpm,
		folder:  "countries-" + countriesVersion,
		file:    "geo-whois-asn-country.mmdb",
		size:    7_841_291,
		install: installPacked,
	}
}

// Countries gives the path of the file, or "" when it is not installed.
func (c Cache) Countries() string {
	p := countriesPart()
	if there, err := c.Present(p); err != nil || !there {
		return ""
	}
	return c.Path(p)
}
