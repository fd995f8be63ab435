package traffic

// Protocol numbers as IANA assigns them.
const (
	icmp = 1
	tcp  = 6
	udp  = 17
	esp  = 50
)

// riskyPorts are what scanners of the internet try first.
var riskyPorts = []uint16{22, 23, 135, 445, 1433, 3389, 5900, 6379}

func ports(p ...uint16) []uint16 { return p }

// connectOutside makes the links of an interface whose other end is not logged.
func (e *Estate) connectOutside(n *nic) {
	from := func(p pool, protocol uint8, weight uint64, at []uint16, rule ruleName) spec {
		return spec{link: link{server: n, outside: p, protocol: protocol, ports: at, weight: weight}, in: rule}
	}
	to := func(p pool, protocol uint8, weight uint64, at []uint16, rule ruleName) spec {
		return spec{link: link{client: n, outside: p, protocol: protocol, ports: at, weight: weight}, out: rule}
	}
	denied := func(s spec) spec { s.denied = true; return s }

	e.add(to(platform, udp, 5, ports(53), allowAdminOut))
	e.add(to(platform, tcp, 2, ports(80, 32526), platformRule))
	e.add(to(internet, udp, 1, ports(123), allowInternet))
	e.add(to(internet, tcp, 8, ports(443), allowInternet))
	e.add(denied(from(scanners, tcp, 4, nil, denyAllIn)))
	e.add(denied(from(scanners, udp, 1, nil, denyAllIn)))
	e.add(denied(from(internet, tcp, 1, riskyPorts, denyRiskyPorts)))
	e.add(denied(from(internet, tcp, 1, nil, denyInternet)))
	switch n.role {
	case web:
		e.add(from(internet, tcp, 40, ports(443, 443, 443, 80), allowHTTPSIn))
		probe := from(platform, tcp, 3, ports(443), allowBalancerIn)
		probe.bursty = true
		e.add(probe)
		if n.vnet.dual {
			v6 := from(internet6, tcp, 12, ports(443), allowHTTPSIn)
			v6.v6 = true
			e.add(v6)
		}
	case app:
		e.add(to(internet, tcp, 12, ports(443, 8443), allowInternet))
		e.add(denied(to(internet, tcp, 1, ports(25, 587), denyMailOut)))
	case data:
		e.add(to(onPremises, tcp, 6, ports(445, 3260), allowBackupOut))
		e.add(from(onPremises, tcp, 6, ports(1433, 5432), allowVNetIn))
	case admin:
		e.add(to(onPremises, esp, 1, ports(0), allowVNetOut))
		e.add(from(onPremises, tcp, 2, ports(22, 3389), allowAdminIn))
	}
}

// connectInside makes the links of an interface, as the client, to other ones.
func (e *Estate) connectInside(n *nic) {
	switch n.role {
	case web:
		for i := range uint64(2) {
			e.inside(n, pick(n, app, i), spec{link: link{protocol: tcp, ports: ports(8080), weight: 14}, out: allowVNetOut, in: allowAppIn})
		}
	case app:
		for i := range uint64(2) {
			e.inside(n, pick(n, data, i), spec{link: link{protocol: tcp, ports: ports(1433, 5432, 6379), weight: 12}, out: allowVNetOut, in: allowDataIn})
		}
		// A service of another, peered network.
		other := e.vnets[(n.vnet.index+1+int(mix(n.key+7)%uint64(len(e.vnets))))%len(e.vnets)]
		if other != n.vnet {
			e.inside(n, pickFrom(other, n.key, web, 0), spec{link: link{protocol: tcp, ports: ports(443), weight: 6}, out: allowVNetOut, in: allowVNetIn})
		}
	case admin:
		for i := range n.index % nicsPerVNet { // Those made before it.
			s := n.vnet.nics[i]
			e.inside(n, s, spec{link: link{protocol: tcp, ports: ports(22), weight: 1}, out: allowVNetOut, in: allowAdminIn, bursty: true})
			e.inside(n, s, spec{link: link{protocol: icmp, ports: ports(0), weight: 1}, out: allowVNetOut, in: allowVNetIn, bursty: true})
		}
	case data: // A server only.
	}
}

// inside makes a link between two interfaces, and what its encryption drops.
func (e *Estate) inside(client, server *nic, s spec) {
	if server == nil {
		return
	}
	s.client, s.server = client, server
	h := mix(client.key ^ server.key)
	s.v6 = client.vnet == server.vnet && client.vnet.dual && h%4 == 0
	if client.vnet != server.vnet || !client.vnet.encrypted {
		e.add(s)
		return
	}
	s.encryption = encryptionOf(h >> 8)
	e.add(s)
	if s.weight < 10 {
		return
	}
	// The server's side is where encryption fails; the client logs nothing.
	drop := s
	drop.serverOnly = true
	drop.denied, drop.weight, drop.encryption = true, 1, droppedEncryption
	drop.in = unspecified
	e.add(drop)
}

// pick chooses an interface of a role in the same network; nil if there is none.
func pick(n *nic, r role, i uint64) *nic { return pickFrom(n.vnet, n.key, r, i) }

func pickFrom(v *vnet, key uint64, r role, i uint64) *nic {
	var have []*nic
	for _, n := range v.nics {
		if n.role == r {
			have = append(have, n)
		}
	}
	if len(have) == 0 {
		return nil
	}
	return have[(key+i)%uint64(len(have))]
}
