package decode

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
)

// estate writes VNet flow logs as the service does: one record a minute, groups of
// about 90 tuples, one tuple in ten IPv6, one in eight encrypted, a quarter without
// counters. Ports and byte counts are near random, so nothing is easier than real.
func estate(records int) []byte {
	r := rand.New(rand.NewPCG(11, 29))
	hosts := make([]string, 4000)
	for i := range hosts {
		hosts[i] = netip.AddrFrom4([4]byte{10, byte(r.IntN(64)), byte(r.IntN(256)), byte(r.IntN(256))}).String()
		if i%10 == 0 {
			hosts[i] = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i), 8: 0, 13: byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}).String()
		}
	}
	zipf := rand.NewZipf(r, 1.2, 4, uint64(len(hosts)-1))
	var b []byte
	for i := range records {
		if i > 0 {
			b = append(b, ',')
		}
		at := int64(1795413600000) + int64(i)*60000
		b = fmt.Appendf(b, `{"time":"2026-11-23T06:%02d:00.5625085Z","flowLogVersion":4,"flowLogGUID":"66aa66aa-bb77-cc88-dd99-00ee00ee00ee",`+
			`"macAddress":"0022487%05X","category":"FlowLogFlowEvent","flowLogResourceID":"/SUBSCRIPTIONS/AAAA0A0A-BB1B-CC2C-DD3D-EEEEEE4E4E4E/RESOURCEGROUPS/`+
			`NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/NETWORKWATCHER_EASTUS/FLOWLOGS/VNET","targetResourceID":"/subscriptions/aaaa0a0a-bb1b-`+
			`cc2c-dd3d-eeeeee4e4e4e/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/myVNet","operationName":"FlowLogFlowEvent","flowRecords":{"flows":[`,
			i%60, i/60)
		for acl := range 2 {
			if acl > 0 {
				b = append(b, ',')
			}
			b = fmt.Appendf(b, `{"aclID":"00aa00aa-bb11-cc22-dd33-44ee44ee44e%d","flowGroups":[`, acl)
			for group := range 3 {
				if group > 0 {
					b = append(b, ',')
				}
				b = fmt.Appendf(b, `{"rule":"%s","flowTuples":[`, []string{"DefaultRule_AllowVnetInBound", "UserRule_web", "DefaultRule_DenyAllInBound"}[group])
				for tuple := range 60 + r.IntN(60) {
					if tuple > 0 {
						b = append(b, ',')
					}
					src := zipf.Uint64()
					b = appendTuple(b, r, at, hosts[src], hosts[sameFamily(src, zipf.Uint64())])
				}
				b = append(b, "]}"...)
			}
			b = append(b, "]}"...)
		}
		b = append(b, "]}}"...)
	}
	return b
}

// sameFamily moves a host to the family of another: every tenth is IPv6.
func sameFamily(like, host uint64) uint64 {
	switch {
	case like%10 == 0:
		return host / 10 * 10
	case host%10 == 0:
		return host + 1
	}
	return host
}

func appendTuple(b []byte, r *rand.Rand, at int64, src, dst string) []byte {
	b = append(b, '"')
	b = strconv.AppendInt(b, at+r.Int64N(60000), 10)
	b = append(append(append(append(b, ','), src...), ','), dst...)
	b = fmt.Appendf(b, ",%d,%d,%d,%c,", r.IntN(65536), []int{443, 80, 53, 3306, 8080, 22}[r.IntN(6)], []int{6, 6, 6, 17, 1}[r.IntN(5)], "IO"[r.IntN(2)])
	enc := "NX"
	if r.IntN(8) == 0 {
		enc = "X"
	}
	if r.IntN(4) == 0 {
		return fmt.Appendf(b, `%c,%s,0,0,0,0"`, "BD"[r.IntN(2)], enc)
	}
	return fmt.Appendf(b, `%c,%s,%d,%d,%d,%d"`, "CE"[r.IntN(2)], enc, r.IntN(3000), r.IntN(4000000), r.IntN(3000), r.IntN(4000000))
}
