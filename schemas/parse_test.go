package schemas

import "testing"

func TestParsePrefix(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", " 10.1.2.3 ": "10.1.2.3/32", "::1": "::1/128", "2001:db8::/32": "2001:db8::/32",
		"::ffff:10.0.0.1": "10.0.0.1/32", "::ffff:10.0.0.0/104": "10.0.0.0/8", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0",
		"10.0.0.1/8": "", "10.0.0.0/33": "", "fe80::1%eth0": "", "": "", "x": "", "10.0.0": "", "2001:db8::1/32": "",
	} {
		got, err := ParsePrefix(text)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("%q gives %v, %v; want %q", text, got, err, want)
		}
	}
}

func TestParseMAC(t *testing.T) {
	for text, want := range map[string]string{
		"000D3A926A7C": "000D3A926A7C", "00:0d:3a:92:6a:7c": "000D3A926A7C", "00-0D-3A-92-6A-7C": "000D3A926A7C", "000d.3a92.6a7c": "000D3A926A7C",
		"": "", "000D3A926A7": "", "000D3A926A7G": "", "000D3A926A7C00": "",
	} {
		got, err := ParseMAC(text)
		if (err != nil) != (want == "") || got != want {
			t.Errorf("%q gives %q, %v; want %q", text, got, err, want)
		}
	}
}
