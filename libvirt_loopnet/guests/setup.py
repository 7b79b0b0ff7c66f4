"""What a guest of a native network needs, as text: for its own network configuration, for cloud-init, and as the
credentials that smbios.py puts into its definition. Pure.

The kernel treats 127.0.0.0/8 from a NIC as martian and answers no ARP for it, unless route_localnet is on
(net/ipv4/route.c, arp.c), nor may a socket speak from there: NetworkManager's DHCP client, which connects one to
the server before it accepts a lease, gets EINVAL (__mkroute_output()), so that its hooks come too late for it.

lo's own /8, in table local, would come before the network's prefix wherever there is an ip rule, so that the
prefix is routed in table local as well; and ip(8), with which dhclient and ifupdown set addresses, gives one out
of 127/8 scope host, which the kernel won't choose as the source of what leaves by the default route
(inet_select_addr).

lo may keep its /8: the longer prefix wins, and systemd, ifupdown and NetworkManager would put it back.
"""

from __future__ import annotations

import base64
from ipaddress import IPv4Network

CLOUD_INIT = "cloud-init"
NETWORKD = "networkd"
NETWORKMANAGER = "networkmanager"
IFUPDOWN = "ifupdown"
SYSCTL = "sysctl"
SMBIOS = "smbios"
FORMATS = (CLOUD_INIT, NETWORKD, NETWORKMANAGER, IFUPDOWN, SYSCTL, SMBIOS)
WITH_PREFIX = (NETWORKD, SMBIOS)
"""What these print depends on the network; the others find out by the address that DHCP gives."""

SYSCTL_SETTING = "net.ipv4.conf.all.route_localnet=1"
SYSCTL_CREDENTIAL = "io.systemd.credential:sysctl.extra"
NETWORK_CREDENTIAL = "io.systemd.credential.binary:network.network."

_SYSCTL = """\
# /etc/sysctl.d/50-loopnet.conf
# This guest has an address in 127.0.0.0/8 on a NIC. For all, so that it holds for NICs plugged in later too;
# the host lets nothing of 127.0.0.0/8 but the guest's own address through to it.
net.ipv4.conf.all.route_localnet = 1
"""

_NETWORKD = """\
# /etc/systemd/network/05-{name}.network
# For NICs on libvirt's network {name}; takes the place of other .network files for them.
[Match]
{match}

[Network]
DHCP=ipv4
IPv4RouteLocalnet=yes

[Route]
# before lo's 127.0.0.0/8, and before any ip rule
Destination={prefix}
Scope=link
Table=local
Type=unicast
"""

_FUNCTION = """\
loopnet_guest() {
    ip -4 -o address show | while read -r _ device _ address _; do
        case $device,$address in
            lo,* | *,127.0.*) continue ;;
            *,127.*) ;;
            *) continue ;;
        esac
        # From this NIC 127/8 is no martian.
        switch=/proc/sys/net/ipv4/conf/$device/route_localnet
        [ "$(cat "$switch")" = 1 ] || echo 1 >"$switch"
        # Before lo's 127.0.0.0/8, and before any ip rule; and the network's DNS server, which may not be found
        # where another NIC has the default route.
        prefix=$(loopnet_prefix "$address")
        for to in "$prefix" "247.${prefix#127.}"; do
            [ -n "$(ip -4 route show table local type unicast exact "$to" dev "$device")" ] ||
                ip -4 route replace "$to" dev "$device" proto kernel scope link src "${address%/*}" table local
        done
        # An address of scope host, as ip(8) makes it, is not taken for a source by itself.
        ip -4 route show default dev "$device" | while read -r route; do
            case " $route " in
                *' src '*) ;;
                *) ip -4 route replace $route dev "$device" src "${address%/*}" ;;
            esac
        done
    done
}
loopnet_prefix() (
    IFS=./
    set -- $1
    bits=$(((($1 << 24) + ($2 << 16) + ($3 << 8) + $4) >> (32 - $5) << (32 - $5)))
    echo "$((bits >> 24 & 255)).$((bits >> 16 & 255)).$((bits >> 8 & 255)).$((bits & 255))/$5"
)
"""

_HOOK_HEAD = """\
#!/bin/sh
# {where}
# Lets this guest have its address in 127.0.0.0/8; does nothing to other addresses.
"""

_PLACES = {
    NETWORKMANAGER: "/etc/NetworkManager/dispatcher.d/pre-up.d/50-loopnet, of mode 755, root's;"
    "\n# needs the file of --format sysctl too, without which NetworkManager doesn't accept its lease",
    IFUPDOWN: "/etc/network/if-up.d/loopnet and /etc/dhcp/dhclient-exit-hooks.d/loopnet, of mode 755;"
    "\n# with dhcpcd: /etc/dhcpcd.exit-hook",
}

_SERVICE_SCRIPT = (
    """\
#!/bin/sh
# Lets this guest have addresses in 127.0.0.0/8, whatever program sets them; runs until ended.
"""
    + _FUNCTION
    + """\
loopnet_stale() {
    # An address may go while a route from it is being made, and the kernel then keeps the route.
    ip -4 route show table local type unicast | while read -r route; do
        case $route in 127.*' proto kernel '* | 247.*' proto kernel '*) ;; *) continue ;; esac
        source=${route#* src }
        ip -4 -o address show | grep -qF " ${source%% *}/" || ip -4 route del $route table local
    done
}
ip -4 -o monitor address route | {
    loopnet_guest
    sleep 1 # what happened before the monitor listened
    loopnet_guest
    while read -r _; do
        loopnet_guest
        loopnet_stale
    done
}
"""
)

_SERVICE = """\
[Unit]
Description=Addresses in 127.0.0.0/8 on NICs
Documentation=man:loopnet(1)
DefaultDependencies=no
After=systemd-sysctl.service local-fs.target
Before=network-pre.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target

[Service]
ExecStart=/bin/sh {script}
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""

SERVICE_NAME = "loopnet-guest.service"


def sysctl() -> str:
    """A file for sysctl.d; enough by itself where the guest has no ip rule and its DHCP client is not
    dhclient."""
    return _SYSCTL


def networkd(name: str, prefix: IPv4Network, mac: str = "") -> str:
    """A .network file of systemd-networkd (250 or later) for network ``name``; for one NIC if ``mac``."""
    match = f"MACAddress={mac}" if mac else "Type=ether"
    return _NETWORKD.format(name=name, prefix=prefix, match=match)


def hook(kind: str) -> str:
    """A hook for NetworkManager's dispatcher, or for ifupdown, dhclient and dhcpcd; some of these run it,
    others read it into a shell of theirs."""
    return _HOOK_HEAD.format(where=_PLACES[kind]) + _FUNCTION + "loopnet_guest\n"


def service_script() -> str:
    """A program that does what hook() does at every change of an address or route, whoever makes it."""
    return _SERVICE_SCRIPT


def service(script: str) -> str:
    """systemd's unit for service_script(), installed as ``script``."""
    return _SERVICE.format(script=script)


def cloud_init() -> str:
    """User data: the sysctl and the service, at work from the first boot on."""
    script = "/usr/local/sbin/loopnet-guest"
    files = (
        ("/etc/sysctl.d/50-loopnet.conf", "0644", sysctl()),
        (script, "0755", service_script()),
        (f"/etc/systemd/system/{SERVICE_NAME}", "0644", service(script)),
    )
    # Packages are installed before runcmd comes: the network has to work by then.
    lines = ["#cloud-config", "bootcmd:", f"  - [sysctl, -q, -w, {SYSCTL_SETTING}]", "write_files:"]
    for path, mode, text in files:
        lines += [f"  - path: {path}", f"    permissions: '{mode}'", "    content: |"]
        lines += [f"      {line}".rstrip() for line in text.splitlines()]
    lines += [
        "runcmd:",
        "  - [systemctl, daemon-reload]",
        f"  - [systemctl, enable, --now, {SERVICE_NAME}]",
        "",
    ]
    return "\n".join(lines)


def credentials(networks: list[tuple[str, IPv4Network, str]]) -> list[str]:
    """The strings of SMBIOS type 11 that prepare a guest whose systemd reads them; (name, prefix, MAC or '').

    systemd 252 and later take sysctl.extra (systemd-sysctl), 256 and later network.network.* too
    (systemd-network-generator, for systemd-networkd).
    """
    found = [f"{SYSCTL_CREDENTIAL}={SYSCTL_SETTING}"]
    for name, prefix, mac in networks:
        text = base64.b64encode(networkd(name, prefix, mac).encode()).decode()
        nic = f"-{mac.replace(':', '')}" if mac else ""
        found.append(f"{NETWORK_CREDENTIAL}05-{name}{nic}={text}")
    return found
