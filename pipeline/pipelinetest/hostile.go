package pipelinetest

import "strings"

// HostileURLs makes more than 200 URLs that lead somewhere else than to the endpoints
// https://flowlogs.blob.core.windows.net and http://127.0.0.1:10000/local, or would
// after somebody parsed, decoded or normalised them. A few of them are a plain, if odd,
// name in the container of the first, once a subject says the same.
func HostileURLs(flowContainer, flowPath string) []string {
	const good = "flowlogs.blob.core.windows.net"
	path := "/" + flowContainer + "/" + flowPath
	hosts := []string{
		// addresses of metadata services and of this machine, in every notation
		"169.254.169.254", "169.254.169.254:80", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "2852039166", "0xA9FEA9FE", "0xa9.0xfe.0xa9.0xfe",
		"0251.0376.0251.0376", "025177524776", "169.254.43518", "169.16689662", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "localhost.", "[::1]",
		"[::]", "0.0.0.0", "0", "[::ffff:7f00:1]", "[fe80::1%25eth0]", "100.100.100.200", "192.0.0.192", "168.63.129.16", "metadata.google.internal", "10.0.0.1", "192.168.0.1",
		"①⑥⑨.②⑤④.①⑥⑨.②⑤④", "127.0.0.1.nip.io", "169.254.169.254.xip.io",
		// around the good name
		good + ".", good + ".evil.example", good + "evil.example", "evil" + good, "evil." + good, "x-" + good, good + ":80", good + ":443", good + ":8443", good + ":", good + ":0443",
		good + "%00.evil.example", good + "%2eevil.example", good + "%2f@evil.example", good + "\x00", good + "\t", good + "\n", good + "\r\nX: y", good + " ", good + "\\@evil.example", good + "\\.evil.example",
		good + "@evil.example", good + ":pw@evil.example", "evil.example@" + good, "user:pw@" + good, "@" + good, ":@" + good, "evil.example#@" + good, "evil.example?@" + good, "evil.example\\@" + good,
		good + "#.evil.example", good + "?.evil.example", good + ";.evil.example", good + ",evil.example", good + "&evil.example", "[" + good + "]", good + "..", "." + good, "flowlogs..blob.core.windows.net",
		"FLOWLOGS.BLOB.CORE.WINDOWS.NET", "Flowlogs.blob.core.windows.net", "flowlogs.blob.core.windows.NET", "flowlogs%2eblob.core.windows.net", "flowlogs.blob%2ecore.windows.net",
		"flowlogs。blob.core.windows.net", "flowlogs．blob.core.windows.net", "flowlogs｡blob.core.windows.net", "fl\u043ewlogs.blob.core.windows.net", "flowlogs.bl\u043eb.core.windows.net", "flowlog\u0455.blob.core.windows.net",
		"flow\u017fogs.blob.core.windows.net", "flowlogs.blob.core.w\u0131ndows.net", "flowlogs.blob.\u212aore.windows.net", "ﬂowlogs.blob.core.windows.net", "flowlogs.blob.core.windows.net\u200b", "\u202eflowlogs.blob.core.windows.net", "flow\u00adlogs.blob.core.windows.net",
		"xn--flowlgs-x2b.blob.core.windows.net",
		// other services and accounts
		"other.blob.core.windows.net", "flowlogs2.blob.core.windows.net", "flowlog.blob.core.windows.net", "flowlogs.file.core.windows.net", "flowlogs.queue.core.windows.net", "flowlogs.table.core.windows.net", "flowlogs.web.core.windows.net",
		"flowlogs-secondary.blob.core.windows.net", "flowlogs.blob.core.chinacloudapi.cn", "flowlogs.blob.core.usgovcloudapi.net", "flowlogs.blob.core.windows.net.cn", "blob.core.windows.net", "windows.net", "flowlogs.z6.web.core.windows.net", "flowlogs", "",
		"127.0.0.1:10000@evil.example", "127.0.0.1:10001/local", "127.0.0.1:10000/other", "127.0.0.1:10000/local2", "127.0.0.1:10000/locals/..", "127.0.0.1:10000//local", "127.0.0.1:10000", "127.0.0.1/local", "127.1:10000/local",
	}
	var urls []string
	for _, h := range hosts {
		urls = append(urls, "https://"+h+path, "http://"+h+path)
	}
	for _, scheme := range []string{"", "HTTPS", "Https", "ftp", "file", "gopher", "ldap", "jar:https", "https:https", "javascript", "data", "dict", "sftp", "ws", "https+x", " https", "\thttps", "abfss", "wasbs", "view-source:https"} {
		urls = append(urls, scheme+"://"+good+path)
	}
	return append(urls,
		"https:/"+good+path, "https:"+good+path, "https:\\\\"+good+path, "https:///"+good+path, "https:////"+good+path, "//"+good+path, good+path, path,
		"https://"+good+path+"?x=y", "https://"+good+path+"?", "https://"+good+path+"#", "https://"+good+path+"#x", "https://"+good+path+"?sig=a&restype=container&comp=list",
		"https://"+good+"?"+path, "https://"+good+"#"+path, "https://"+good+"\\"+path, "https://"+good+"//"+flowContainer+"/"+flowPath,
		"https://"+good+"/../"+flowContainer+"/"+flowPath, "https://"+good+"/x/.."+path, "https://"+good+"/%2e%2e"+path, "https://"+good+"/"+flowContainer+"/../other/"+flowPath,
		"https://"+good+"/"+flowContainer+"%2f"+flowPath, "https://"+good+"/"+flowContainer+"\\"+flowPath, "https://"+good+"/"+flowContainer+"//"+flowPath, "https://"+good+path+"/", "https://"+good+path+"/..",
		"https://"+good+path+"%00", "https://"+good+path+"%0d%0aX:%20y", "https://"+good+path+"\r\nX: y", "https://"+good+path+" ", " https://"+good+path, "https://"+good+path+"\x00",
		"https://"+good, "https://"+good+"/", "https://", "https", "", "://", "https://evil.example/https://"+good+path, "https://evil.example/?u=https://"+good+path, "http://"+good+path,
		"https://"+good+"/$root/"+flowPath, "https://"+good+"/"+strings.ToUpper(flowContainer)+"/"+flowPath, "https://"+good+"/"+flowContainer+"/"+strings.Repeat("a", 70_000),
	)
}

// HostileSubject is the subject that an attacker would send beside the URL.
func HostileSubject(u string) string {
	_, rest, _ := strings.Cut(u, "://")
	_, rest, _ = strings.Cut(rest, "/")
	container, path, _ := strings.Cut(rest, "/")
	return "/blobServices/default/containers/" + container + "/blobs/" + path
}
