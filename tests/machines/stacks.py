"""What Debian systems on disks consist of: the ways to configure a network that it has, as its packages and manuals set
them up, and a whole host."""

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


CHANNEL_LAST = """\
[Unit]
After=libvirtd.socket systemd-networkd.service
"""
UPLINK = """\
[Match]
Name=eth0

[Network]
DHCP=ipv4
LinkLocalAddressing=no
"""
HOST_SCRIPT = """\
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
cd /etc/apparmor.d
for profile in *; do
    case $profile in
    usr.sbin.dnsmasq | usr.sbin.libvirtd | usr.lib.libvirt.virt-aa-helper) continue ;;
    esac
    [ -d "$profile" ] || ln -sf "/etc/apparmor.d/$profile" disable/
done
"""
"""AppArmor's profiles of what runs there stay; to compile all others takes an emulated machine minutes at each boot."""


class Stack(NamedTuple):
    """What a system has beside what all have; a way to configure the network, mostly."""

    packages: Tuple[str, ...]
    files: Tuple[Tuple[str, str], ...] = ()
    """What an administrator, or an installer, writes down; no word of loopnet."""
    enable: Tuple[str, ...] = ()
    """Services that the packages leave disabled."""
    suite: str = ""
    """Debian's code name; '' is that of this machine."""
    mask: Tuple[str, ...] = ()
    """Units that cost time when every instruction is emulated, and do nothing for the test."""
    script: str = ""
    """Run in the system when it is made, last of all."""
    own_kernel: bool = False
    """It boots a kernel and an initramfs from its own packages, with all modules; else the guest image's kernel."""
    disk_size: str = "2G"


_SYSTEMD = Stack(
    ("systemd-resolved",),
    (("/etc/systemd/network/80-dhcp.network", NETWORKD),),
    ("systemd-networkd.service", "systemd-resolved.service"),
)
_IFUPDOWN = Stack(("ifupdown", "isc-dhcp-client"), (("/etc/network/interfaces", INTERFACES),))

HOST = Stack(
    (
        "systemd-resolved", "procps", "linux-image-cloud-amd64", "initramfs-tools", "nftables", "dnsmasq-base",
        "curl", "make", "python3", "python3-libvirt", "python3-lxml", "python3-pyroute2",
        "libvirt-daemon-system", "libvirt-clients", "libvirt-daemon-driver-qemu", "libvirt-daemon-driver-lxc",
        "qemu-system-x86", "apparmor", "apparmor-profiles",
    ),
    (
        ("/etc/hostname", "inner\n"),
        ("/etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\tinner\n"),
        ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("/etc/fstab", ""),
        ("/etc/systemd/network/50-uplink.network", UPLINK),
        ("/etc/systemd/system/channel.service.d/last.conf", CHANNEL_LAST),
    ),
    ("systemd-networkd.service", "systemd-resolved.service", "libvirtd.socket"),
    suite="trixie",
    mask=(
        "getty.target", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_reap.service", "ssh.service",
        "systemd-logind.service", "libvirt-guests.service", "dpkg-db-backup.timer",
    ),
    script=HOST_SCRIPT,
    own_kernel=True,
    disk_size="3G",
)  # fmt: skip
"""A whole host: systemd, libvirtd, QEMU and what loopnet needs, but for loopnet itself."""

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
    "host": HOST,
}
"""Beside them one that programs work with (Ansible's modules, Vagrant, the guest agent, mDNS), and the host."""
