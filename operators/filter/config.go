package filter

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/schemas"
)

// Config is one filter: a list of conditions, and what becomes of a row that meets
// all of them. A condition that is not there is met by every row; the values of
// one condition are alternatives.
type Config struct {
	// Name counts what the filter drops: lower-case letters, digits and _, at most 48.
	// Required.
	Name string `yaml:"name"`
	// Drop says what becomes of a row that fits: true leaves it out, false keeps it,
	// whatever the filters behind say. Required.
	Drop *bool `yaml:"drop"`
	// Src, Dst and Either are addresses or CIDR prefixes of the source, the
	// destination, or one of the two. Default any, at most 1,000,000 over all filters.
	Src    []string `yaml:"src"`
	Dst    []string `yaml:"dst"`
	Either []string `yaml:"either"`
	// SrcFile, DstFile and EitherFile name files with more of them, one a line; blank
	// lines and what follows a # are ignored. Default none.
	SrcFile    string `yaml:"src_file"`
	DstFile    string `yaml:"dst_file"`
	EitherFile string `yaml:"either_file"`
	// SrcPort, DstPort and EitherPort are ports, 0 to 65535, or ranges such as
	// 8000-8999. Default any.
	SrcPort    []string `yaml:"src_port"`
	DstPort    []string `yaml:"dst_port"`
	EitherPort []string `yaml:"either_port"`
	// Protocol: tcp, udp, icmp, icmpv6, or an IANA number, 0 to 255. Default any.
	Protocol []string `yaml:"protocol"`
	// Direction: inbound, outbound. Default any.
	Direction []string `yaml:"direction"`
	// State: begin, continuing, end, denied, unknown. Default any.
	State []string `yaml:"state"`
	// Action: allowed, denied. Default any.
	Action []string `yaml:"action"`
	// MAC is that of the network interface that logged the flow, with or without : or -.
	// Default any.
	MAC []string `yaml:"mac"`
	// Rule is the rule's name as logged; a * at the end stands for anything. Default
	// any.
	Rule []string `yaml:"rule"`
}

const (
	maxFilters  = 64
	maxPrefixes = 1_000_000
	maxNames    = 10_000 // of one condition
)

var validName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// Files lists the files that the filters name, each once.
func Files(cfg []Config) []string {
	var paths []string
	for _, c := range cfg {
		for _, path := range []string{c.SrcFile, c.DstFile, c.EitherFile} {
			if path != "" && !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// Validate reports every fault of the list at once, each with its key path, such
// as filters[1].dst_port[0]. It reads no file.
func Validate(cfg []Config) error {
	_, err := resolve(cfg, nil, false)
	return err
}

// resolver turns a configuration into specs and gathers faults.
type resolver struct {
	faults   []error
	prefixes int
}

func (r *resolver) fault(path, format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf(path+": "+format, args...))
}

// resolve checks the list and gives it in the form of a recipe. Without withFiles
// the contents of files are not asked for.
func resolve(cfg []Config, files map[string][]byte, withFiles bool) ([]spec, error) {
	r := &resolver{}
	if len(cfg) > maxFilters {
		r.fault("filters", "%d filters, at most %d", len(cfg), maxFilters)
	}
	names := map[string]int{}
	var specs []spec
	last := -1 // a filter that every row fits
	for i, c := range cfg {
		path := fmt.Sprintf("filters[%d]", i)
		if !validName.MatchString(c.Name) {
			r.fault(path+".name", "%q, want 1 to 48 of a-z, 0-9 and _, a letter first", c.Name)
		} else if first, ok := names[c.Name]; ok {
			r.fault(path+".name", "%q is already the name of filters[%d]", c.Name, first)
		}
		names[c.Name] = i
		if c.Drop == nil {
			r.fault(path+".drop", "missing: true leaves rows that fit out, false keeps them")
		}
		if last >= 0 {
			r.fault(path, "no row comes here: every row fits filters[%d], which has no conditions", last)
		}
		s := r.spec(path, c, files, withFiles)
		if s.matchesAll() && c.SrcFile+c.DstFile+c.EitherFile == "" {
			last = i
		}
		specs = append(specs, s)
	}
	if r.prefixes > maxPrefixes {
		r.fault("filters", "%d addresses and prefixes, at most %d", r.prefixes, maxPrefixes)
	}
	return specs, errors.Join(r.faults...)
}

func (r *resolver) spec(path string, c Config, files map[string][]byte, withFiles bool) spec {
	s := spec{Name: c.Name, Drop: c.Drop != nil && *c.Drop}
	file := func(name string) []byte {
		if name == "" || !withFiles {
			return nil
		}
		return files[name]
	}
	s.Src = r.addresses(path+".src", c.Src, c.SrcFile, file(c.SrcFile))
	s.Dst = r.addresses(path+".dst", c.Dst, c.DstFile, file(c.DstFile))
	s.Either = r.addresses(path+".either", c.Either, c.EitherFile, file(c.EitherFile))
	s.SrcPort = r.ports(path+".src_port", c.SrcPort)
	s.DstPort = r.ports(path+".dst_port", c.DstPort)
	s.EitherPort = r.ports(path+".either_port", c.EitherPort)
	s.Protocol = r.protocols(path+".protocol", c.Protocol)
	s.Direction = r.words(path+".direction", c.Direction, schemas.Directions)
	s.State = r.words(path+".state", c.State, schemas.States)
	s.Action = r.words(path+".action", c.Action, schemas.Actions)
	s.MAC = r.macs(path+".mac", c.MAC)
	s.Rule = r.rules(path+".rule", c.Rule)
	return s
}

// addresses gives the prefixes of a list and of a file's content, sorted. It gives
// an empty list that is not nil when a file names none: then nothing fits.
func (r *resolver) addresses(path string, list []string, file string, content []byte) []string {
	var out []string
	for i, text := range list {
		p, err := schemas.ParsePrefix(text)
		if err != nil {
			r.fault(fmt.Sprintf("%s[%d]", path, i), "%v", err)
			continue
		}
		out = append(out, p.String())
	}
	if file != "" {
		if out == nil {
			out = []string{}
		}
		out = append(out, r.lines(path+"_file", file, content)...)
	}
	r.prefixes += len(out)
	slices.Sort(out)
	return slices.Compact(out)
}

// maxFileFaults bounds what is said about one file.
const maxFileFaults = 20

func (r *resolver) lines(path, file string, content []byte) []string {
	var out []string
	faults := 0
	for i, line := range strings.Split(strings.TrimPrefix(string(content), "\uFEFF"), "\n") {
		text, _, _ := strings.Cut(line, "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := schemas.ParsePrefix(text)
		if err == nil {
			out = append(out, p.String())
			continue
		}
		if faults++; faults <= maxFileFaults {
			r.fault(path, "file %q: line %d: %v", file, i+1, err)
		}
	}
	if faults > maxFileFaults {
		r.fault(path, "file %q: %d more lines with faults", file, faults-maxFileFaults)
	}
	return out
}

func (r *resolver) ports(path string, list []string) []portRange {
	var out []portRange
	for i, text := range list {
		first, last, isRange := strings.Cut(strings.TrimSpace(text), "-")
		if !isRange {
			last = first
		}
		lo, err := strconv.ParseUint(first, 10, 16)
		hi, err2 := strconv.ParseUint(last, 10, 16)
		if err != nil || err2 != nil || lo > hi {
			r.fault(fmt.Sprintf("%s[%d]", path, i), "%q, want a port from 0 to 65535, or a range such as 8000-8999", text)
			continue
		}
		out = append(out, portRange{uint16(lo), uint16(hi)})
	}
	return out
}

var protocolNumbers = map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}

func (r *resolver) protocols(path string, list []string) []int {
	var out []int
	for i, text := range list {
		number, ok := protocolNumbers[strings.ToLower(text)]
		if !ok {
			n, err := strconv.ParseUint(text, 10, 8)
			if err != nil {
				r.fault(fmt.Sprintf("%s[%d]", path, i), "%q, want tcp, udp, icmp, icmpv6, or a number from 0 to 255", text)
				continue
			}
			number = uint8(n)
		}
		out = append(out, int(number))
	}
	return out
}

func (r *resolver) words(path string, list, words []string) []string {
	for i, text := range list {
		if !slices.Contains(words, text) {
			r.fault(fmt.Sprintf("%s[%d]", path, i), "%q, want one of %s", text, strings.Join(words, ", "))
		}
	}
	return list
}

func (r *resolver) macs(path string, list []string) []string {
	r.bound(path, list)
	var out []string
	for i, text := range list {
		mac, err := schemas.ParseMAC(text)
		if err != nil {
			r.fault(fmt.Sprintf("%s[%d]", path, i), "%v", err)
			continue
		}
		out = append(out, mac)
	}
	return out
}

func (r *resolver) rules(path string, list []string) []string {
	r.bound(path, list)
	for i, text := range list {
		if text == "" || strings.Contains(strings.TrimSuffix(text, "*"), "*") {
			r.fault(fmt.Sprintf("%s[%d]", path, i), "%q, want a name, with a * at its end at most", text)
		}
	}
	return list
}

func (r *resolver) bound(path string, list []string) {
	if len(list) > maxNames {
		r.fault(path, "%d values, at most %d", len(list), maxNames)
	}
}
