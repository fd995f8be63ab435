package traffic

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Shape of an estate.
const (
	nicsPerVNet          = 16
	vnetsPerSubscription = 3
	minuteMS             = 60_000
	hourMS               = 60 * minuteMS
)

// format is what the logs of one interface look like.
type format uint8

const (
	vnet4 format = iota
	nsg1
	nsg2
)

func (f format) container() string {
	if f == vnet4 {
		return "insights-logs-flowlogflowevent"
	}
	return "insights-logs-networksecuritygroupflowevent"
}

// role is what the machine behind an interface does.
type role uint8

const (
	web role = iota
	app
	data
	admin
)

// roles of the interfaces of a virtual network, in order. The first four
// differ, so that a small estate has every kind of traffic too.
var roles = [nicsPerVNet]role{web, app, data, admin, web, app, data, web, app, data, web, app, data, web, app, admin}

var (
	roleNames = [...]string{web: "web", app: "app", data: "data", admin: "admin"}
	regions   = []string{"eastus2", "westeurope", "southeastasia", "northeurope"}
	macs      = []string{"000D3A", "002248", "6045BD", "7C1E52"}
)

// endpoint is an address as text, for records, and as a number, for sums.
type endpoint struct {
	text []byte
	sum  uint64
}

func endpointOf(a netip.Addr) endpoint { return endpoint{text: a.AppendTo(nil), sum: addrSum(a)} }

// vnet is a virtual network: a /20 of 10.0.0.0/8 with one /24 per role.
type vnet struct {
	index        int
	name         string
	subscription string
	group        string
	region       string
	dual         bool // Has IPv6 as well.
	encrypted    bool
	admin        string // Id of the Virtual Network Manager configuration.
	nsgs         [len(roleNames)]string
	nics         []*nic
}

// nic is one network interface: the writer of one blob an hour.
type nic struct {
	index   int
	account string
	vnet    *vnet
	role    role
	format  format
	mac     string
	ip4     endpoint
	ip6     endpoint // Used in dual networks only.
	phase   int64    // Its minutes begin at this many milliseconds into the clock's.
	key     uint64
	prefix  string // Path of its blobs before the date.
	opening string // JSON of its records between the time and the flows.
	groups  []group
	ends    []end
}

// Estate is the immutable world of one Config: networks, interfaces and the
// links over which flows run. It is safe for concurrent use.
type Estate struct {
	cfg      Config
	accounts []string
	nics     []*nic
	vnets    []*vnet
	links    []*link
	load     [24 * 60]uint64 // Load by minute of the day, 1024 = mean.
}

// NewEstate builds the estate of a configuration. The same seed and shape give
// the same estate; Start, Until and the rates of events have no part in it.
func NewEstate(cfg Config) (*Estate, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Estate{cfg: cfg, accounts: cfg.AccountNames()}
	for v := 0; v*nicsPerVNet < cfg.NICs; v++ {
		e.vnets = append(e.vnets, e.newVNet(v))
	}
	for i := range cfg.NICs {
		n := e.newNIC(i)
		n.vnet.nics = append(n.vnet.nics, n)
		e.nics = append(e.nics, n)
	}
	e.fillLoad()
	e.connect()
	return e, nil
}

// NICs is the number of interfaces; they are numbered from 0.
func (e *Estate) NICs() int { return len(e.nics) }

func (e *Estate) newVNet(v int) *vnet {
	sub := v / vnetsPerSubscription
	h := place(e.cfg.Seed, forVNet, uint64(v))
	net := &vnet{
		index:        v,
		name:         fmt.Sprintf("vnet-%s-%02d", []string{"prod", "stage", "shared"}[v%vnetsPerSubscription], v),
		subscription: guid(place(e.cfg.Seed, forSubscription, uint64(sub))),
		group:        fmt.Sprintf("rg-network-%02d", sub),
		region:       regions[sub%len(regions)],
		dual:         chance(mix(h+1), e.cfg.IPv6Share),
		encrypted:    v%2 == 0,
		admin:        guid(place(e.cfg.Seed, forSubscription, uint64(sub), 1)),
	}
	for r := range net.nsgs {
		net.nsgs[r] = guid(place(e.cfg.Seed, forSubnet, uint64(v), uint64(r)))
	}
	return net
}

func (e *Estate) newNIC(i int) *nic {
	net := e.vnets[i/nicsPerVNet]
	key := place(e.cfg.Seed, forNIC, uint64(i))
	n := &nic{
		index:   i,
		account: e.accounts[i%len(e.accounts)],
		vnet:    net,
		role:    roles[i%nicsPerVNet],
		format:  e.formatOf(key),
		key:     key,
		phase:   int64(below(mix(key+1), minuteMS)),
	}
	// The running number keeps the address unique, the maker's prefix real.
	n.mac = macs[mix(key+2)%uint64(len(macs))] + strings.ToUpper(hex(0, uint64(i)*40503&0xFFFF|mix(e.cfg.Seed)&0xFF<<16, 6))
	host := byte(4 + i%nicsPerVNet)
	v := net.index
	n.ip4 = endpointOf(netip.AddrFrom4([4]byte{10, byte(v >> 4), byte(v&15)<<4 | byte(n.role), host}))
	ula := mix(place(e.cfg.Seed, forVNet, uint64(v), 6))
	n.ip6 = endpointOf(netip.AddrFrom16([16]byte{
		0xfd, byte(ula), byte(ula >> 8), byte(ula >> 16), byte(v >> 8), byte(v), 0, byte(n.role),
		15: host,
	}))
	n.prefix, n.opening = e.resources(n)
	return n
}

func (e *Estate) formatOf(key uint64) format {
	switch h := mix(key + 3); {
	case chance(h, e.cfg.NSGv1Share):
		return nsg1
	case chance(h, e.cfg.NSGv1Share+e.cfg.NSGv2Share):
		return nsg2
	default:
		return vnet4
	}
}

// resources renders what a flow log resource fixes: the path of its blobs and
// the constant members of its records.
func (e *Estate) resources(n *nic) (prefix, opening string) {
	net := n.vnet
	if n.format != vnet4 {
		return e.nsgResources(n)
	}
	logName := fmt.Sprintf("fl-%s", net.name)
	target := fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Network/virtualNetworks/%s", net.subscription, net.group, net.name)
	switch mix(n.key+4) % 8 { // Flow logs may also stand on a subnet or on one interface.
	case 0:
		logName += "-" + roleNames[n.role]
		target += "/subnets/snet-" + roleNames[n.role]
	case 1:
		logName += fmt.Sprintf("-nic%05d", n.index)
		target = fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Network/networkInterfaces/nic-%s-%05d", net.subscription, net.group, roleNames[n.role], n.index)
	}
	id := strings.ToUpper(fmt.Sprintf("/subscriptions/%s/resourceGroups/NetworkWatcherRG/providers/Microsoft.Network/networkWatchers/NetworkWatcher_%s/flowLogs/%s", net.subscription, net.region, logName))
	switch net.index % 3 { // The vendor's pages show three layouts.
	case 0:
		prefix = strings.ToUpper(fmt.Sprintf("%s_NetworkWatcherRG/NetworkWatcher_%s_%s", net.subscription, net.region, logName))
	case 1:
		prefix = net.subscription + "_NETWORKWATCHERRG/NETWORKWATCHER_" + strings.ToUpper(fmt.Sprintf("%s_%s-%s-flowlogs", net.region, logName, net.group))
	default:
		prefix = id
	}
	mac := n.mac
	if mix(n.key+5)%16 == 0 { // Seen in a real record: the path has upper case, the record has not.
		mac = strings.ToLower(mac)
	}
	opening = fmt.Sprintf(`","flowLogVersion":4,"flowLogGUID":"%s","macAddress":"%s","category":"FlowLogFlowEvent","flowLogResourceID":"%s","targetResourceID":"%s","operationName":"FlowLogFlowEvent","flowRecords":{"flows":[`,
		guid(place(e.cfg.Seed, forResource, uint64(net.index), textPlace(logName))), mac, id, target)
	return "flowLogResourceID=/" + strings.TrimPrefix(prefix, "/"), opening
}

func (e *Estate) nsgResources(n *nic) (prefix, opening string) {
	net := n.vnet
	id := strings.ToUpper(fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Network/networkSecurityGroups/nsg-%s-%s", net.subscription, net.group, net.name, roleNames[n.role]))
	version := 2
	if n.format == nsg1 {
		version = 1
	}
	opening = fmt.Sprintf(`","systemId":"%s","macAddress":"%s","category":"NetworkSecurityGroupFlowEvent","resourceId":"%s","operationName":"NetworkSecurityGroupFlowEvents","properties":{"Version":%d,"flows":[`,
		net.nsgs[n.role], n.mac, id, version)
	return "resourceId=" + id, opening
}

// textPlace turns a text into a number for place.
func textPlace(s string) uint64 {
	h := uint64(len(s))
	for i := range len(s) {
		h = mix(h ^ uint64(s[i])*golden)
	}
	return h
}

// hourlyLoad is the load by hour of the day in percent of the swing; it adds up
// to nothing.
var hourlyLoad = [24]int{-85, -95, -100, -95, -85, -65, -35, 0, 40, 65, 80, 90, 75, 80, 90, 85, 75, 50, 35, 0, -20, -45, -65, -75}

// fillLoad draws straight lines between the hours, in whole numbers: the same
// on every processor.
func (e *Estate) fillLoad() {
	for m := range e.load {
		h, part := m/60, m%60
		percent := hourlyLoad[h]*(60-part) + hourlyLoad[(h+1)%24]*part // Times 60.
		e.load[m] = uint64(1024 + 1024*percent*e.cfg.DiurnalPercent/(60*100*100))
	}
}

// Windows. An interface's window w covers [w min + phase, w + 1 min + phase).

// windowStart is the first instant of a window, Unix milliseconds.
func (n *nic) windowStart(w int64) int64 { return w*minuteMS + n.phase }

// due is when a window's record may be appended. Its own time is a little
// earlier, its tuples' times are earlier still: nothing passes the clock.
func (n *nic) due(w int64) int64 { return n.windowStart(w+1) + recordDelayMS }

// hour is the hour, in Unix hours, of the blob that holds a window.
func (n *nic) hour(w int64) int64 { return floorDiv(n.windowStart(w)+minuteMS/2, hourMS) }

// firstWindow is the first window that starts at or after t, Unix milliseconds.
func (n *nic) firstWindow(t int64) int64 { return floorDiv(t-n.phase+minuteMS-1, minuteMS) }

// blob names the blob of an hour, in Unix hours.
func (n *nic) blob(hour int64) BlobName {
	return BlobName{Account: n.account, Container: n.format.container(), Path: n.path(hour)}
}

// path is the name of the blob of an hour, in Unix hours, in its container.
func (n *nic) path(hour int64) string {
	t := time.UnixMilli(hour * hourMS).UTC()
	return n.prefix + t.Format("/y=2006/m=01/d=02/h=15/m=00/macAddress=") + n.mac + "/PT1H.json"
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// addrSum folds an address into a number for order-free sums: the upper and the
// lower 64 bits of its 16-byte form (IPv4 mapped into IPv6) added up.
func addrSum(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]) + binary.BigEndian.Uint64(b[8:])
}
