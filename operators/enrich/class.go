package enrich

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/millrace/millrace/schemas"
)

// azurePlatform is the address under which Azure's own services (DNS, health
// probes, the agent) reach every virtual machine.
//
// Source: learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16,
// read 2026-11.
var azurePlatform = netip.AddrFrom4([4]byte{168, 63, 129, 16})

// special lists what is not public, the longest prefix of an address deciding.
//
// Source: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), read
// 2026-11.
var special = []struct {
	prefix string
	class  uint8
}{
	{"0.0.0.0/8", schemas.ClassReserved},
	{"0.0.0.0/32", schemas.ClassUnspecified},
	{"10.0.0.0/8", schemas.ClassPrivate},
	{"100.64.0.0/10", schemas.ClassCGNAT},
	{"127.0.0.0/8", schemas.ClassLoopback},
	{"169.254.0.0/16", schemas.ClassLinkLocal},
	{"172.16.0.0/12", schemas.ClassPrivate},
	{"192.0.0.0/24", schemas.ClassReserved},
	{"192.0.2.0/24", schemas.ClassDocumentation},
	{"192.88.99.0/24", schemas.ClassReserved},
	{"192.168.0.0/16", schemas.ClassPrivate},
	{"198.18.0.0/15", schemas.ClassReserved},
	{"198.51.100.0/24", schemas.ClassDocumentation},
	{"203.0.113.0/24", schemas.ClassDocumentation},
	{"224.0.0.0/4", schemas.ClassMulticast},
	{"240.0.0.0/4", schemas.ClassReserved},
	{"255.255.255.255/32", schemas.ClassBroadcast},

	{"::/0", schemas.ClassReserved},
	{"::/128", schemas.ClassUnspecified},
	{"::1/128", schemas.ClassLoopback},
	{"64:ff9b::/96", schemas.ClassPublic},
	{"2000::/3", schemas.ClassPublic},
	{"2001:db8::/32", schemas.ClassDocumentation},
	{"3fff::/20", schemas.ClassDocumentation},
	{"fc00::/7", schemas.ClassPrivate},
	{"fe80::/10", schemas.ClassLinkLocal},
	{"ff00::/8", schemas.ClassMulticast},
}

var classes = func() *bart.Table[uint8] {
	t := &bart.Table[uint8]{}
	for _, s := range special {
		t.Insert(netip.MustParsePrefix(s.prefix), s.class)
	}
	return t
}()

// Class gives the place of an address's class in schemas.AddressClasses. IPv4 is
// not mapped.
func Class(a netip.Addr) uint8 {
	if a == azurePlatform {
		return schemas.ClassAzurePlatform
	}
	if class, ok := classes.Lookup(a); ok {
		return class
	}
	return schemas.ClassPublic
}
