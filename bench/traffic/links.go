package traffic

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
)

// group is a rule of an ACL; the flow groups of a record stand in this order.
type group struct {
	entry int // Groups of one entry share an element of "flows".
	acl   string
	rule  string
}

// Entries of a record, in order. Two of them may have the same ACL, as in the
// published samples.
const (
	entryDefault = iota
	entryUser
	entryAdmin
	entryPlatform
	entryUnspecified
)

// ruleName names rules by who made them: the estate knows no other ones.
type ruleName struct {
	entry int
	name  string
}

var (
	allowVNetIn     = ruleName{entryDefault, "DefaultRule_AllowVnetInBound"}
	allowVNetOut    = ruleName{entryDefault, "DefaultRule_AllowVnetOutBound"}
	allowBalancerIn = ruleName{entryDefault, "DefaultRule_AllowAzureLoadBalancerInBound"}
	allowInternet   = ruleName{entryDefault, "DefaultRule_AllowInternetOutBound"}
	denyAllIn       = ruleName{entryDefault, "DefaultRule_DenyAllInBound"}
	allowHTTPSIn    = ruleName{entryUser, "UserRule_Allow-HTTPS-In"}
	allowAppIn      = ruleName{entryUser, "UserRule_Allow_App_From_Web"}
	allowDataIn     = ruleName{entryUser, "UserRule_Allow_Data_From_App"}
	allowAdminIn    = ruleName{entryUser, "UserRule_AllowAdmin.SSH"}
	allowBackupOut  = ruleName{entryUser, "UserRule_AllowBackupOut"}
	denyMailOut     = ruleName{entryUser, "UserRule_DenySmtpOutBound"}
	// Security admin rules are logged with their bare names.
	denyRiskyPorts = ruleName{entryAdmin, "BlockHighRiskTCPPortsFromInternet"}
	denyInternet   = ruleName{entryAdmin, "Internet"}
	allowAdminOut  = ruleName{entryAdmin, "AlwaysAllowDns"}
	// The vendor documents platform rules but not their text: this one is made up.
	platformRule = ruleName{entryPlatform, "PlatformRule"}
	// What the encryption of a virtual network denied has no rule.
	unspecified = ruleName{entryUnspecified, "unspecified"}
)

// zeroGUID stands for the ACL of platform rules, which is not documented either.
const zeroGUID = "00000000-0000-0000-0000-000000000000"

// pool is where the address of an end that is not an interface comes from. All
// pools are ranges for private use, documentation or benchmarks.
type pool uint8

const (
	noPool pool = iota
	internet
	internet6
	scanners
	onPremises
	platform
)

// address picks an address of a pool. Low numbers are picked more often: some
// talkers are always on top.
func (p pool) address(h uint64) netip.Addr {
	var a [4]byte
	switch p {
	case internet:
		n := uint32(h&0x1FFFF) >> (bits.LeadingZeros64(h) * 2 % 16)
		binary.BigEndian.PutUint32(a[:], 198<<24|18<<16|n) // 198.18.0.0/15
	case internet6:
		b := [16]byte{0x20, 0x01, 0x0d, 0xb8, byte(h>>8) & 7, byte(h), 15: 1}
		binary.BigEndian.PutUint16(b[12:], uint16(h>>16))
		return netip.AddrFrom16(b)
	case scanners:
		nets := [3][3]byte{{192, 0, 2}, {198, 51, 100}, {203, 0, 113}}
		n := nets[h>>8%3]
		a = [4]byte{n[0], n[1], n[2], byte(h)}
	case onPremises:
		a = [4]byte{172, 16, byte(h>>8) & 15, byte(h)}
	case platform:
		a = [4]byte{168, 63, 129, 16}
	default:
		panic("BUG: traffic: an address of no pool")
	}
	return netip.AddrFrom4(a)
}

// link is a relation over which flows run, from a client to a server. One of
// them may lie outside of the estate; then its addresses come from a pool.
type link struct {
	key            uint64
	client, server *nic
	outside        pool
	protocol       uint8
	ports          []uint16 // One is picked per flow; none: scans of any port.
	v6             bool
	denied         bool
	encryption     []string // One is picked per flow.
	weight         uint64
	short, long    uint64 // Flows begun per minute at mean load, times 65536.
}

// end is one interface's view of a link.
type end struct {
	link     *link
	group    int
	outbound bool
}

// spec is a link to be made, with the rule that each side reports.
type spec struct {
	link
	out, in    ruleName
	bursty     bool // Short flows only.
	serverOnly bool // The client does not log it.
}

// connect makes all links and scales them so that the interfaces log
// TuplesPerMinute on average.
func (e *Estate) connect() {
	for _, n := range e.nics {
		e.connectOutside(n)
		e.connectInside(n)
	}
	// Weighted tuples per minute, over both ends, if each link had as many flows
	// as its weight.
	var total uint64
	for _, n := range e.nics {
		for _, d := range n.ends {
			total += d.link.weight * d.link.cost()
		}
	}
	want := float64(len(e.nics)) * float64(e.cfg.TuplesPerMinute)
	for _, l := range e.links {
		l.short = uint64(want * float64(l.weight) / float64(total) * 65536 * 64)
		if l.long == 1 {
			l.long = l.short / longShare
		}
	}
	for _, n := range e.nics {
		n.layout()
	}
}

// longShare is the number of short flows per long one.
const longShare = 64

// cost is the mean number of tuples per short flow, times 64. A long flow lasts
// 16 minutes on average: a begin, an end and 2.7 continuations.
func (l *link) cost() uint64 {
	switch {
	case l.denied:
		return 64
	case l.long == 1:
		return 2*64 + 5*64/longShare
	default:
		return 2 * 64
	}
}

// add makes a link if somebody can see it.
func (e *Estate) add(s spec) {
	l := new(link)
	*l = s.link
	l.key = place(e.cfg.Seed, forLink, uint64(len(e.links)))
	// Interfaces differ: factors from 0.5 to 1.5 for the client's link.
	l.weight *= 512 + below(mix(l.key+1), 1024)
	if !s.bursty && !l.denied {
		l.long = 1
	}
	if l.encryption == nil {
		l.encryption = notEncrypted
	}
	seen := false
	for _, side := range []struct {
		n        *nic
		rule     ruleName
		outbound bool
	}{{l.client, s.out, true}, {l.server, s.in, false}} {
		if side.n == nil || side.outbound && s.serverOnly || !side.n.sees(l, side.rule) {
			continue
		}
		g := side.n.groupOf(side.rule)
		side.n.ends = append(side.n.ends, end{link: l, group: g, outbound: side.outbound})
		seen = true
	}
	if seen {
		e.links = append(e.links, l)
	}
}

// sees tells whether the interface logs a link: NSG flow logs know TCP and UDP
// over IPv4 and the rules of network security groups, nothing else.
func (n *nic) sees(l *link, r ruleName) bool {
	if n.format == vnet4 {
		return true
	}
	return (l.protocol == 6 || l.protocol == 17) && !l.v6 && r.entry <= entryUser
}

func (n *nic) groupOf(r ruleName) int {
	g := group{entry: r.entry, acl: n.vnet.nsgs[n.role], rule: r.name}
	switch r.entry {
	case entryUser:
		if n.key%4 != 0 { // Else the ACL comes twice.
			g.entry = entryDefault
		}
	case entryAdmin:
		g.acl = n.vnet.admin
	case entryPlatform:
		g.acl = zeroGUID
	case entryUnspecified:
		g.acl = "unspecified"
	}
	if i := slices.Index(n.groups, g); i >= 0 {
		return i
	}
	n.groups = append(n.groups, g)
	return len(n.groups) - 1
}

// layout puts the groups of an interface in the order of its records.
func (n *nic) layout() {
	sorted := slices.Clone(n.groups)
	slices.SortStableFunc(sorted, func(a, b group) int {
		if a.entry != b.entry {
			return a.entry - b.entry
		}
		return strings.Compare(a.rule, b.rule)
	})
	for i := range n.ends {
		n.ends[i].group = slices.Index(sorted, n.groups[n.ends[i].group])
	}
	n.groups = sorted
}

// Encryption values. A link keeps its value, unless encryption itself drops.
var (
	notEncrypted      = []string{"NX"}
	droppedEncryption = []string{"NX_SW_NOT_READY", "NX_NOT_ACCEPTED", "NX_NOT_SUPPORTED"}
)

// encryptionOf picks the value of a link inside of a virtual network with
// encryption: most succeed; same host, old hardware and fallbacks occur.
func encryptionOf(h uint64) []string {
	values := []string{"X", "X", "X", "X", "X", "NX_LOCAL_DST", "NX_HW_NOT_SUPPORTED", "NX_FALLBACK"}
	return []string{values[h%uint64(len(values))]}
}
