"""The real systemd-networkd in a namespace of a lab, on the host or as a guest."""

from __future__ import annotations

from .lab import Lab

NETIF = "/run/systemd/netif"
"""Its state."""
FILES = "/run/systemd/network"
"""Its .network files."""
RUN = """\
mkdir -p /run/host; echo other >/run/host/container-manager
mount -o remount,bind,ro /sys
exec /lib/systemd/systemd-networkd
"""
"""Runs it, for a shell with a mount namespace. It waits for udev, which is not there, unless /sys can't be written;
that of Ubuntu 24.04 also wants to be in a container, which systemd's container interface has it say."""


def prepare(lab: Lab) -> None:
    """Make the directories that systemd would."""
    lab.host.sh(
        f"mkdir -p {FILES} {NETIF}/links {NETIF}/leases {NETIF}/lldp\nchown -R systemd-network: {NETIF}"
    )
