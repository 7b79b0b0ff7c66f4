"""The ways to configure a network that Debian has, as its packages and manuals set them up."""

from __future__ import annotations

from typing import NamedTuple, Tuple

NETWORKD = """\
[Match]
Name=e*

[Network]
DHCP=yes
"""

INTERFACES = """\
auto lo
iface lo inet loopback

allow-hotplug eth0
iface eth0 inet dhcp

allow-hotplug eth1
iface eth1 inet dhcp
"""


class Stack(NamedTuple):
    """A way to configure the network."""

    packages: Tuple[str, ...]
    files: Tuple[Tuple[str, str], ...] = ()
    """What an administrator, or an installer, writes down; no word of loopnet."""
    enable: Tuple[str, ...] = ()
    """Services that the packages leave disabled."""
    suite: str = ""
    """Debian's code name; '' is that of this machine."""


_SYSTEMD = Stack(
    ("systemd-resolved",),
    (("/etc/systemd/network/80-dhcp.network", NETWORKD),),
    ("systemd-networkd.service", "systemd-resolved.service"),
)
_IFUPDOWN = Stack(("ifupdown", "isc-dhcp-client"), (("/etc/network/interfaces", INTERFACES),))

STACKS = {
    "networkd": _SYSTEMD,
    "networkmanager": Stack(("network-manager",)),
    "ifupdown": _IFUPDOWN,
    "dhcpcd": Stack(("dhcpcd",)),
    "cloud-init": Stack(("cloud-init", "netplan.io", "systemd-resolved")),
    "package": _IFUPDOWN,
    "smbios": _SYSTEMD,
    "trixie": _SYSTEMD._replace(suite="trixie"),
}

SYSTEMS = {
    **STACKS,
    "managed": Stack(
        ("avahi-daemon", "libnss-mdns", "systemd-resolved", "python3", "qemu-guest-agent"),
        (
            ("/etc/systemd/network/80-dhcp.network", NETWORKD),
            ("/etc/fstab", "# /: the initramfs mounts it\n"),
        ),
        ("systemd-networkd.service", "systemd-resolved.service"),
    ),
}
"""Beside them one that programs work with: Ansible's modules, Vagrant, the guest agent, mDNS."""
