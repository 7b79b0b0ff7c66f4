"""What a mandatory access control lets a confined dnsmasq do: AppArmor's profile, SELinux's policy.

dnsmasq reads the reservations (host/dnsmasq.py) and runs the lease script (host/leases.py). Its profile in
AppArmor (profiles/apparmor.d/usr.sbin.dnsmasq there) allows neither: of /var/lib/libvirt/dnsmasq it may read
the files, ``*``, and no directory below; what it can't read it logs, and gives no guest an address. SELinux's
policy lets it read that directory and not watch it, and what dnsmasq can't watch it doesn't read either. Packages
bring what is lacking: packaging/apparmor-dnsmasq, included by the profile, and packaging/selinux/, a module
whose labels on the script and the hooks tell that it is there.
"""

from __future__ import annotations

import os

from ..errors import Hindrance
from .dnsmasq import read

PROFILES = "/sys/kernel/security/apparmor/profiles"
"""AppArmor's loaded profiles, ``NAME (enforce)`` a line."""
PROFILE = "/etc/apparmor.d/usr.sbin.dnsmasq"
LOCAL_RULES = "/etc/apparmor.d/local/usr.sbin.dnsmasq"
"""What the profile includes of the host's own."""
OWN_RULES = "/usr/share/libvirt-loopnet/apparmor-dnsmasq"
"""What packages have included there,."""
ADD_RULES = "/usr/libexec/libvirt-loopnet/apparmor-rules"
"""The packages' program that has them included."""
PACKAGED = "/usr/libexec/libvirt-loopnet/lease"

ENFORCE = "/sys/fs/selinux/enforce"
SCRIPT_TYPE = "loopnet_lease_exec_t"
HOOK_TYPE = "loopnet_hook_exec_t"
"""Types of packaging/selinux/loopnet.te."""

_DIRECTORIES = ("/var/lib/libvirt/dnsmasq/*.loopnet/", "/var/lib/libvirt/dnsmasq/**")
"""How rules that let dnsmasq read the reservations begin."""


def of_reservations() -> Hindrance | None:
    """Why a confined dnsmasq can't read the reservations; None if it can."""
    if not _apparmor_enforces():
        return None
    given = _text(PROFILE) + _text(LOCAL_RULES)
    if OWN_RULES in given or any(directory in given for directory in _DIRECTORIES):
        return None
    remedy = _remedy(f"{_DIRECTORIES[0]}{{,*}} r,")
    return Hindrance("AppArmor keeps dnsmasq from reading the reservations", remedy)


def of_script(path: str) -> Hindrance | None:
    """Why a confined dnsmasq can't run the lease script ``path``; None if it can."""
    if selinux_enforces() and selinux_type(path) != SCRIPT_TYPE:
        return Hindrance(
            f"SELinux is enforcing, and {path} lacks the label that lets dnsmasq run it and watch the reservations",
            f"install the package libvirt-loopnet-selinux; restorecon {path}",
        )
    given = _text(LOCAL_RULES)
    if not _apparmor_enforces() or f"{path} " in given or (path == PACKAGED and OWN_RULES in given):
        return None
    rules = f"{path} rix, /{{,usr/}}bin/{{timeout,logger}} rix,"
    return Hindrance(f"AppArmor keeps dnsmasq from running {path}", _remedy(rules))


def selinux_enforces() -> bool:
    return _text(ENFORCE).strip() == "1"


def selinux_type(path: str) -> str:
    """The type in the label of a file; '' if it has none.

    Of a label whose module is gone the kernel says unlabeled_t (selinux_inode_getsecurity()).
    """
    try:
        fields = os.getxattr(path, "security.selinux").rstrip(b"\0").decode("ascii", "replace").split(":")
    except OSError:
        return ""
    return fields[2] if len(fields) > 2 else ""


def _apparmor_enforces() -> bool:
    lines = _text(PROFILES).splitlines()
    return any(line.endswith(" (enforce)") and _is_dnsmasq(line.split()[0]) for line in lines)


def _is_dnsmasq(profile: str) -> bool:
    return profile == "dnsmasq" or profile.endswith("/dnsmasq")


def _remedy(rules: str) -> str:
    if os.access(ADD_RULES, os.X_OK):
        return f"{ADD_RULES} add"
    return f"echo '{rules}' >>{LOCAL_RULES}; systemctl reload apparmor"


def _text(path: str) -> str:
    try:
        return (read(path) or b"").decode("utf-8", "replace")
    except OSError:
        return ""
