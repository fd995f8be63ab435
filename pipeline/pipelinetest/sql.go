package pipelinetest

import "strings"

// HostileSQL makes more than 100 texts that would end a name or a literal of
// ClickHouse's SQL, begin another statement, or read and write where nobody should,
// were one of them put into a statement as it stands.
func HostileSQL() []string {
	breaks := []string{"'", "\"", "`", "\\", "\\'", "'')", "');", "`;", "\";", "'--", "' --", "'/*", "*/", "\x00'", "\n'", "\\x27", "\\u0027", "%27", "''", "\\\\'", "ʼ", "＇", "´", "{x:Identifier}", "$1", "?", "@x", ":x"}
	acts := []string{
		"", " OR 1=1", "; DROP TABLE flows", "; DROP DATABASE millrace", " UNION ALL SELECT * FROM system.users", "; SELECT * FROM system.one INTO OUTFILE '/tmp/millrace-injected' --",
		"; SELECT * FROM url('http://169.254.169.254/', 'RawBLOB')", "; INSERT INTO FUNCTION file('/tmp/millrace-injected', 'CSV') SELECT 1",
	}
	var all []string
	for i, b := range breaks {
		all = append(all, b, "x"+b, b+acts[i%len(acts)], "flows"+b+acts[(i+3)%len(acts)]+" --")
	}
	return append(all,
		"flows; DROP TABLE flows", "flows FORMAT Null", "flows SETTINGS readonly=0", "system.tables", "system`.`tables", "other.flows", "../system", "flows\x00", "flows ", " flows", "1flows", "SELECT",
		"flows\nFORMAT CSV", "(SELECT 1)", "numbers(10)", "file('/etc/passwd')", "url('http://evil.example')", "remote('evil.example', system.one)", "executable('id', 'CSV', 'x String')",
		"ﬂows", "flоws", "flows\u200b", "flows#", "-- flows", "/* flows */", strings.Repeat("a", 65), strings.Repeat("'", 1000), strings.Repeat("(", 1000), strings.Repeat("`", 999)+"x", "\xff\xfe", "\u202eswolf",
	)
}
