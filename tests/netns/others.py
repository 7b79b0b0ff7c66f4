"""Networks of others on the same host, with the rules that their programs write for them: facts from Docker's,
netavark's, CNI's and libvirt's own sources, for a bridge ``other0`` with 172.17.0.0/16."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.sandbox import Namespace

from .lab import Lab

BRIDGE, GATEWAY, CLIENT = "other0", "172.17.0.1", "172.17.0.2"

_DOCKER = """\
{0} -P FORWARD DROP
{0} -N DOCKER; {0} -N DOCKER-USER; {0} -N DOCKER-FORWARD; {0} -N DOCKER-BRIDGE; {0} -N DOCKER-CT
{0} -N DOCKER-INTERNAL
{0} -A FORWARD -j DOCKER-USER
{0} -A FORWARD -j DOCKER-FORWARD
{0} -A DOCKER ! -i other0 -o other0 -j DROP
{0} -A DOCKER-BRIDGE -o other0 -j DOCKER
{0} -A DOCKER-CT -o other0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{0} -A DOCKER-FORWARD -j DOCKER-CT
{0} -A DOCKER-FORWARD -j DOCKER-INTERNAL
{0} -A DOCKER-FORWARD -j DOCKER-BRIDGE
{0} -A DOCKER-FORWARD -i other0 -j ACCEPT
{0} -t nat -N DOCKER
{0} -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
{0} -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
{0} -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o other0 -j MASQUERADE
"""
_DOCKER_NFT = """\
nft -f - <<END
table ip docker-bridges {
	map filter-forward-in-jumps {
		type ifname : verdict
		elements = { "other0" : jump filter-forward-in__other0 }
	}
	map filter-forward-out-jumps {
		type ifname : verdict
		elements = { "other0" : jump filter-forward-out__other0 }
	}
	map nat-postrouting-out-jumps {
		type ifname : verdict
		elements = { "other0" : jump nat-postrouting-out__other0 }
	}
	chain filter-FORWARD {
		type filter hook forward priority filter; policy accept;
		oifname vmap @filter-forward-in-jumps
		iifname vmap @filter-forward-out-jumps
	}
	chain nat-OUTPUT {
		type nat hook output priority -100; policy accept;
		ip daddr != 127.0.0.0/8 fib daddr type local jump nat-prerouting-and-output
	}
	chain nat-POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		iifname vmap @nat-postrouting-out-jumps
	}
	chain nat-PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump nat-prerouting-and-output
	}
	chain nat-prerouting-and-output {
	}
	chain filter-forward-in__other0 {
		ct state established,related accept
		iifname "other0" accept
		drop
	}
	chain filter-forward-out__other0 {
		ct state established,related accept
		accept
	}
	chain nat-postrouting-out__other0 {
		oifname != "other0" ip saddr 172.17.0.0/16 masquerade
	}
}
END
"""
_NETAVARK = """\
{0} -N NETAVARK_FORWARD
{0} -A FORWARD -j NETAVARK_FORWARD
{0} -A NETAVARK_FORWARD -m conntrack --ctstate INVALID -j DROP
{0} -A NETAVARK_FORWARD -d 172.17.0.0/16 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{0} -A NETAVARK_FORWARD -s 172.17.0.0/16 -j ACCEPT
{0} -t nat -N NETAVARK-1D8721804F16F
{0} -t nat -A POSTROUTING -s 172.17.0.0/16 -j NETAVARK-1D8721804F16F
{0} -t nat -A NETAVARK-1D8721804F16F -d 172.17.0.0/16 -j ACCEPT
{0} -t nat -A NETAVARK-1D8721804F16F ! -d 224.0.0.0/4 -j MASQUERADE
"""
_NETAVARK_NFT = """\
nft -f - <<END
table inet netavark {
	chain FORWARD {
		type filter hook forward priority filter; policy accept;
		ct state invalid drop
		ip daddr 172.17.0.0/16 ct state related,established accept
		ip saddr 172.17.0.0/16 accept
	}
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.17.0.0/16 jump nv_2f259bab_172_17_0_0_nm16
	}
	chain nv_2f259bab_172_17_0_0_nm16 {
		ip daddr 172.17.0.0/16 accept
		ip daddr != 224.0.0.0/4 masquerade
	}
}
END
"""
_CNI = """\
{0} -N CNI-FORWARD; {0} -N CNI-ADMIN
{0} -I FORWARD -j CNI-FORWARD
{0} -A CNI-FORWARD -j CNI-ADMIN
{0} -A CNI-FORWARD -d 172.17.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{0} -A CNI-FORWARD -s 172.17.0.2/32 -j ACCEPT
{0} -t nat -N CNI-4a3f3c2b0a1e9d8c7b6a5f4e
{0} -t nat -A POSTROUTING -s 172.17.0.2/32 -j CNI-4a3f3c2b0a1e9d8c7b6a5f4e
{0} -t nat -A CNI-4a3f3c2b0a1e9d8c7b6a5f4e -d 172.17.0.0/16 -j ACCEPT
{0} -t nat -A CNI-4a3f3c2b0a1e9d8c7b6a5f4e ! -d 224.0.0.0/4 -j MASQUERADE
"""
_LIBVIRT = """\
{0} -N LIBVIRT_FWI; {0} -N LIBVIRT_FWO; {0} -N LIBVIRT_FWX; {0} -t nat -N LIBVIRT_PRT
{0} -I FORWARD -j LIBVIRT_FWO; {0} -I FORWARD -j LIBVIRT_FWI; {0} -I FORWARD -j LIBVIRT_FWX
{0} -A LIBVIRT_FWI -d 172.17.0.0/16 -o other0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{0} -A LIBVIRT_FWI -o other0 -j REJECT
{0} -A LIBVIRT_FWO -s 172.17.0.0/16 -i other0 -j ACCEPT
{0} -A LIBVIRT_FWO -i other0 -j REJECT
{0} -A LIBVIRT_FWX -i other0 -o other0 -j ACCEPT
{0} -t nat -A POSTROUTING -j LIBVIRT_PRT
{0} -t nat -A LIBVIRT_PRT -s 172.17.0.0/16 -d 224.0.0.0/24 -j RETURN
{0} -t nat -A LIBVIRT_PRT -s 172.17.0.0/16 ! -d 172.17.0.0/16 -p tcp -j MASQUERADE --to-ports 1024-65535
{0} -t nat -A LIBVIRT_PRT -s 172.17.0.0/16 ! -d 172.17.0.0/16 -p udp -j MASQUERADE --to-ports 1024-65535
{0} -t nat -A LIBVIRT_PRT -s 172.17.0.0/16 ! -d 172.17.0.0/16 -j MASQUERADE
"""
_LIBVIRT_NFT = """\
nft -f - <<END
table ip libvirt_network {
	chain forward {
		type filter hook forward priority filter; policy accept;
		counter jump guest_cross
		counter jump guest_input
		counter jump guest_output
	}
	chain guest_output {
		ip saddr 172.17.0.0/16 iif "other0" counter accept
		iif "other0" counter reject
	}
	chain guest_input {
		oif "other0" ip daddr 172.17.0.0/16 ct state established,related counter accept
		oif "other0" counter reject
	}
	chain guest_cross {
		iif "other0" oif "other0" counter accept
	}
	chain guest_nat {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.17.0.0/16 ip daddr 224.0.0.0/24 counter return
		meta l4proto tcp ip saddr 172.17.0.0/16 ip daddr != 172.17.0.0/16 counter masquerade to :1024-65535
		meta l4proto udp ip saddr 172.17.0.0/16 ip daddr != 172.17.0.0/16 counter masquerade to :1024-65535
		ip saddr 172.17.0.0/16 ip daddr != 172.17.0.0/16 counter masquerade
	}
}
END
"""
RULES = {
    **{f"docker, {tool}": _DOCKER.replace("{0}", tool) for tool in ("iptables-nft", "iptables-legacy")},
    "docker, nft": _DOCKER_NFT,
    "podman, iptables-nft": _NETAVARK.replace("{0}", "iptables-nft"),
    "podman, nft": _NETAVARK_NFT,
    "nerdctl, iptables-nft": _CNI.replace("{0}", "iptables-nft"),
    "libvirt, iptables-nft": _LIBVIRT.replace("{0}", "iptables-nft"),
    "libvirt, iptables-legacy": _LIBVIRT.replace("{0}", "iptables-legacy"),
    "libvirt, nft": _LIBVIRT_NFT,
}
"""By who writes them, and how."""
_FORGET = """\
for tool in iptables-nft iptables-legacy; do
    $tool -P FORWARD ACCEPT
    for table in filter nat; do $tool -t $table -F; $tool -t $table -X; done
done
for table in 'ip docker-bridges' 'inet netavark' 'ip libvirt_network' 'ip filter' 'ip nat'; do
    nft delete table $table 2>/dev/null || :
done
"""


@contextlib.contextmanager
def other_network(lab: Lab, rules: str = "") -> Iterator[Namespace]:
    """Somebody on a network of somebody else: a container, or a guest of libvirt's own network."""
    lab.host.sh(
        f"ip netns add other; ip link add {BRIDGE} type bridge; ip link set {BRIDGE} up\n"
        f"ip address add {GATEWAY}/16 dev {BRIDGE}\n"
        f"ip link add other1 type veth peer name eth0 netns other; ip link set other1 master {BRIDGE} up\n"
        f"ip -n other address add {CLIENT}/16 dev eth0; ip -n other link set eth0 up\n"
        f"ip -n other link set lo up; ip -n other route add default via {GATEWAY}"
    )
    try:
        lab.host.sh(rules)
        lab.host.run(["loopnet", "sync"])
        yield lab.namespace("other")
    finally:
        lab.host.sh(f"{_FORGET}ip link delete {BRIDGE}; ip link delete other1; ip netns delete other")
        lab.host.run(["loopnet", "sync"])
