package schemas

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ParsePrefix reads an address or a CIDR prefix as people write it, IPv4 not
// mapped.
//
// Errors: what is wrong, with what was probably meant.
func ParsePrefix(text string) (netip.Prefix, error) {
	text = strings.TrimSpace(text)
	if addr, err := netip.ParseAddr(text); err == nil {
		if addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q has a zone, want an address without one", text)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is no address or CIDR prefix such as 10.1.0.0/16", text)
	case p.Addr().Is4In6() && p.Bits() >= 96:
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits behind the prefix, want %v", text, p.Masked())
	}
	return p, nil
}

// ParseMAC gives a MAC address as flow rows have it: 12 upper-case hex digits.
//
// Errors: a text of other digits, or with signs other than : - and . in it.
func ParseMAC(text string) (string, error) {
	mac := strings.ToUpper(strings.NewReplacer(":", "", "-", "", ".", "").Replace(strings.TrimSpace(text)))
	if len(mac) != 12 || strings.Trim(mac, "0123456789ABCDEF") != "" {
		return "", errors.New("want a MAC address such as 00:0D:3A:92:6A:7C")
	}
	return mac, nil
}

// FromAddress gives an address as record batches hold it.
func FromAddress(raw [16]byte) netip.Addr { return netip.AddrFrom16(raw).Unmap() }
