package enrich

import "strings"

// resource is what an ARM id names.
type resource struct {
	subscription, group, vnet, subnet, nic string
}

// parts gives the texts in the order of the columns.
func (r resource) parts() [armColumns]string {
	return [armColumns]string{r.subscription, r.group, r.vnet, r.subnet, r.nic}
}

// parseResource reads an ARM id. Azure writes the same id in different cases, so
// the words between the names are compared without regard to it; names are kept as
// they are. A text that is no ARM id gives nothing.
func parseResource(id string) resource {
	var r resource
	parts := strings.Split(id, "/")
	if parts[0] != "" {
		return r
	}
	for i := 1; i+1 < len(parts); i += 2 {
		name := parts[i+1]
		switch strings.ToLower(parts[i]) {
		case "subscriptions":
			r.subscription = name
		case "resourcegroups":
			r.group = name
		case "virtualnetworks":
			r.vnet = name
		case "subnets":
			r.subnet = name
		case "networkinterfaces":
			r.nic = name
		}
	}
	return r
}
