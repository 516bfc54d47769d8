package container

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/container"
)

// claim is what a container wants for itself while it runs.
type claim struct {
	ports     []claimedPort
	host      bool   // the host's network
	shared    string // container whose network it uses
	addresses map[string][]netip.Addr
}

type claimedPort struct {
	number   uint16
	protocol string
	address  netip.Addr
}

// overlaps says whether both cannot be had: an address that is not given is all of them.
func (p claimedPort) overlaps(o claimedPort) bool {
	all := func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }
	return p.number != 0 && p.number == o.number && p.protocol == o.protocol && (all(p.address) || all(o.address) || p.address == o.address)
}

func claims(host *container.HostConfig, networks []endpoint) claim {
	c := claim{host: host.NetworkMode.IsHost(), shared: host.NetworkMode.ConnectedContainer(), addresses: map[string][]netip.Addr{}}
	for port, bindings := range host.PortBindings {
		for _, b := range bindings {
			if number, err := strconv.ParseUint(b.HostPort, 10, 16); err == nil && number > 0 {
				c.ports = append(c.ports, claimedPort{uint16(number), string(port.Proto()), b.HostIP})
			}
		}
	}
	for _, n := range networks {
		if n.endpoint != nil && n.endpoint.IPAMConfig != nil {
			for _, a := range []netip.Addr{n.endpoint.IPAMConfig.IPv4Address, n.endpoint.IPAMConfig.IPv6Address} {
				if a.IsValid() {
					c.addresses[n.name] = append(c.addresses[n.name], a)
				}
			}
		}
	}
	return c
}

func claimsOf(c *found) claim {
	var networks []endpoint
	for name, e := range c.NetworkSettings.Networks {
		networks = append(networks, endpoint{name, e})
	}
	return claims(c.HostConfig, networks)
}

// clash names something that both want, "" if there is nothing.
func (c claim) clash(o claim) string {
	switch {
	case c.host && o.host:
		return "the host's network"
	case c.shared != "" && c.shared == o.shared:
		return "the network of container " + c.shared
	}
	for _, p := range c.ports {
		for _, q := range o.ports {
			if p.overlaps(q) {
				return fmt.Sprintf("port %d/%s", p.number, p.protocol)
			}
		}
	}
	for name, addresses := range c.addresses {
		for _, a := range addresses {
			if slices.Contains(o.addresses[name], a) {
				return fmt.Sprintf("address %s of network %s", a, name)
			}
		}
	}
	return ""
}
