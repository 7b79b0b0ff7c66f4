"""What a host holds that a network could change, as text, and how two such texts differ."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Dict, List

if TYPE_CHECKING:
    from .sandbox import Sandbox

Snapshot = Dict[str, str]
"""What was looked at -> what was seen."""

COMMANDS = {
    "ip addr": "ip address | sed /valid_lft/d",
    "ip route show table all": "ip route show table all; ip -6 route show table all",
    "ip rule": "ip rule; ip -6 rule",
    "nft list ruleset": "nft --stateless list ruleset",
    "/etc/hosts": "stat -c '%A %u:%g' /etc/hosts; cat /etc/hosts",
    "sysctls": "cd /proc/sys/net && "
    "grep -rsH '' ipv4/conf ipv4/neigh ipv4/ip_forward ipv6/conf bridge | sort",
}

# Files that libvirt leaves behind itself, of any network: /run/libvirt/network/NAME.pid and these.
FILES = """\
find /etc/libvirt/hooks /etc/libvirt-loopnet.conf /run /var/lib/libvirt/dnsmasq \\
    \\( -path /run/libvirt -o -path /run/libvirtd.pid -o -path '/run/virt*d.pid' -o -path /run/sandbox \\
       -o -path /run/checkout -o -path /run/mount \\) -prune -o \\
    -path '/var/lib/libvirt/dnsmasq/*' \\
    \\( -name '*.addnhosts' -o -name '*.conf' -o -name '*.hostsfile' -o -name '*.macs' \\
       -o -name '*.status' \\) -prune -o \\
    -printf '%M %u:%g %p\\n' -type f -exec sha256sum {} + 2>/dev/null | sort
ps -e -o comm= | grep -e dnsmasq -e qemu | sort
true
"""


def snapshot(sandbox: Sandbox) -> Snapshot:
    """What the sandbox's host holds now.

    libvirt itself turns forwarding on, for good, when it starts its first network.
    """
    seen = {name: sandbox.host.sh(command) for name, command in COMMANDS.items()}
    seen["files"] = sandbox.host.sh(FILES)
    return seen


def differences(before: Snapshot, after: Snapshot) -> str:
    """What changed, as a diff; "" if nothing did."""
    lines: List[str] = []
    for name, old in before.items():
        new = after[name]
        lines += difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"{name} before", f"{name} after", lineterm="", n=0
        )
    return "\n".join(lines)
