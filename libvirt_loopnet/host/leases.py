"""libvirt's list of leases: which addresses it has, and what dnsmasq is told about it.

libvirt has dnsmasq run a helper for every lease, which keeps the list that ``virsh domifaddr``,
``net-dhcp-leases`` and libnss-libvirt read. A script of ours (hooks/lease) goes before it and hands it loop
addresses. Two files, written before dnsmasq starts::

    /var/lib/libvirt/dnsmasq/NAME.loopnet-dnsmasq      dhcp-script=/usr/libexec/libvirt-loopnet/lease
    /var/lib/libvirt/dnsmasq/BRIDGE.loopnet-leases     loop clean 127.1.0.0 10.127.1.0 255.255.255.0 HELPER

* The first is a ``conf-file=`` of the network, which has ipv6_options() and tftp_options() as well. In it, and
  not in the definition, stands the script, as only here it is known where this installation has it and whether
  dnsmasq may run it: dnsmasq doesn't start when it can't. A file overrides the --dhcp-script on libvirt's
  command line (dnsmasq's option.c, one_opt()).
* dnsmasq passes the script no arguments, but the bridge's name in the environment that libvirt gave it
  (VIR_BRIDGE_NAME, networkBuildDhcpDaemonCommandLine()); so the second file is by bridge. It is read for
  every lease: with SIGHUP, at which dnsmasq tells of all leases again, a change counts at once.

libvirt's list, BRIDGE.status, is written by libvirt's helper alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv6Address

from ..errors import Hindrance, StateError
from ..files import state_error
from ..model import MAPPED, Network
from ..networks.dnsmasq_options import ipv6_options, lease_option
from ..networks.elements import place
from . import confinement
from .dnsmasq import read, update

ROOT = "/var/lib/libvirt/dnsmasq"
"""Here, as AppArmor's profile for dnsmasq lets it read only here."""
HELPERS = (
    "/usr/libexec/libvirt_leaseshelper",  # Fedora, openSUSE
    "/usr/lib/libvirt/libvirt_leaseshelper",  # Debian, Arch
    "/usr/lib64/libvirt/libvirt_leaseshelper",
    "/usr/libexec/libvirt/libvirt_leaseshelper",
)
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SCRIPTS = (
    f"{_PACKAGE}/hooks/lease",  # a checkout
    f"{_PACKAGE}/lease",  # make install
    f"{os.path.dirname(os.path.dirname(os.path.dirname(_PACKAGE)))}/share/libvirt-loopnet/hooks/lease",  # pip
    confinement.PACKAGED,
)
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+-")
_MIXED = "mixed"
_REINSTALL = "reinstall libvirt-loopnet"
_SAY_SO = 'if that is intended, lease-addresses = "guest" in /etc/libvirt-loopnet.conf'


def prepare(
    network: Network, addresses: str, options: Sequence[str], root: str = ROOT, more: Sequence[str] = ()
) -> Hindrance | None:
    """Lay out both files for the start of ``network``; why libvirt will list guest addresses, None if it won't.

    ``addresses`` is the setting lease-addresses, ``options`` are the dnsmasq options of the definition, ``more`` are
    further lines of the first file. A native network, whose guests have one address only, needs no script. Raises
    StateError.
    """
    from . import ipv6  # a guest's events read leases only

    mapped = network.mode == MAPPED
    why = _obstacle(network, options) if mapped else None
    lines = [f"dhcp-script={script()}"] if mapped and not why else []
    lines += ipv6_options(network) if ipv6.is_enabled() else []
    lines += more
    try:
        update(_configuration(network.name, root), "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise state_error(error.filename or root, error) from None
    try:
        sync(network, addresses, root)
    except StateError as error:
        return Hindrance(str(error), "loopnet sync")  # a list, for which no network is refused
    return why


def sync(network: Network, addresses: str, root: str = ROOT) -> bool:
    """Make the script's file say what holds now; True if dnsmasq has to tell of its leases again (SIGHUP).

    Raises StateError.
    """
    if network.mode != MAPPED or not network.bridge or not helper():
        return False
    path = _plan(network.bridge, root)
    try:
        old, new = read(path), _line(network, addresses, root)
        update(path, new)
    except OSError as error:
        raise state_error(error.filename or path, error) from None
    return _settled(old) != _settled(new) or (_MIXED.encode() in new and old != new)


def stale(network: Network, addresses: str, root: str = ROOT) -> list[str]:
    """The path of the script's file, if it says other than it should."""
    if network.mode != MAPPED or not helper():
        return []
    path = _plan(network.bridge, root)
    try:
        same = _settled(read(path)) == _settled(_line(network, addresses, root))
    except OSError as error:  # sync() says why
        return [error.filename or path]
    return [] if same else [path]


def remove(network_name: str, bridge: str, root: str = ROOT) -> None:
    """Take both files away, when the network's dnsmasq has ended. Raises StateError."""
    paths = [_configuration(network_name, root)] + ([_plan(bridge, root)] if bridge else [])
    for path in paths:
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)
        except OSError as error:
            raise state_error(path, error) from None


def remove_others(active: Sequence[Network], root: str = ROOT) -> list[str]:
    """Take away the files of all networks but the ``active`` ones; their paths. Raises StateError."""
    kept = {path for n in active for path in (_configuration(n.name, root), _plan(n.bridge, root))}
    ends = (".loopnet-dnsmasq", ".loopnet-leases")
    try:
        entries = sorted(os.listdir(root)) if os.path.isdir(root) else []
        paths = [os.path.join(root, entry) for entry in entries if entry.endswith(ends)]
        gone = [path for path in paths if path not in kept]
        for path in gone:
            os.unlink(path)
    except OSError as error:
        raise state_error(error.filename or root, error) from None
    return gone


def obstacle(network: Network, options: Sequence[str], root: str = ROOT) -> Hindrance | None:
    """Why libvirt lists guest addresses of the running ``network``, None if it needn't."""
    if network.mode != MAPPED:
        return None
    why = _obstacle(network, options)
    if not why and "dhcp-script=" not in _text(_configuration(network.name, root)):
        restart = f"virsh net-destroy {network.name}; virsh net-start {network.name}"
        return Hindrance("the network was started without the lease script", restart)
    return why


def ipv6_leases(networks: Iterable[Network], root: str = ROOT) -> frozenset[IPv6Address]:
    """The addresses in IPv6 that guests of these networks have leased, as libvirt's lists have them."""
    listed = [_text(os.path.join(root, f"{n.bridge}.status")).encode() for n in networks if n.ipv6]
    found = (address for text in listed for address in _addresses(text) if ":" in address)
    return frozenset(IPv6Address(address) for address in found if _is_ipv6(address))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def script() -> str | Hindrance:
    """The lease script of this installation, or why dnsmasq can't run any."""
    for path in _SCRIPTS:
        if os.path.isfile(path):
            if not os.access(path, os.X_OK):  # on a file system mounted noexec as well
                return Hindrance(f"{path} can't be executed", "loopnet install-hooks")
            if not _SAFE.issuperset(path):  # dnsmasq has a shell run it
                return Hindrance(f"the path {path} has characters that are special to a shell", _REINSTALL)
            return path
    return Hindrance(f"the lease script is in none of {', '.join(_SCRIPTS)}", _REINSTALL)


def helper() -> str:
    """libvirt's lease helper, '' if it is in none of the places known."""
    return next((path for path in HELPERS if os.access(path, os.X_OK)), "")


def _obstacle(network: Network, options: Sequence[str]) -> Hindrance | None:
    if lease_option(network.name) not in options:
        return Hindrance(
            f"the definition lacks the dnsmasq option {lease_option(network.name)!r}",
            f"virsh net-dumpxml --inactive {network.name} | loopnet rewrite > new.xml; virsh net-define new.xml",
        )
    if any(option.startswith("dhcp-script=") for option in options):
        return Hindrance("the definition has a dhcp-script of its own", _SAY_SO)
    if not helper():
        return Hindrance(
            f"libvirt's lease helper is in none of {', '.join(HELPERS)}", "reinstall libvirt's network driver"
        )
    found = script()
    return found if isinstance(found, Hindrance) else confinement.of_script(found)


def _line(network: Network, addresses: str, root: str) -> bytes:
    """The line for the script; see hooks/lease."""
    loop, guest = network.loop_prefix, network.guest_prefix
    other = guest if addresses == "loop" else loop
    listed = read(os.path.join(root, f"{network.bridge}.status")) or b""
    state = _MIXED if any(place(address, (other,)) is not None for address in _addresses(listed)) else "clean"
    fields = (addresses, state, loop.network_address, guest.network_address, loop.netmask, helper())
    return " ".join(map(str, fields)).encode() + b"\n"


def _addresses(listed: bytes) -> list[str]:
    """The addresses in libvirt's list, which is JSON; importing that would cost more than all the rest."""
    parts = listed.split(b'"ip-address"')[1:]
    return [part.split(b'"', 2)[1].decode("ascii", "replace") for part in parts if part.count(b'"') > 1]


def _settled(line: bytes | None) -> list[bytes]:
    """``line`` without the word that says whether libvirt's list is mixed."""
    fields = (line or b"").split()
    return fields[:1] + fields[2:]


def _configuration(network_name: str, root: str) -> str:
    return os.path.join(root, f"{network_name}.loopnet-dnsmasq")


def _plan(bridge: str, root: str) -> str:
    return os.path.join(root, f"{bridge}.loopnet-leases")


def _text(path: str) -> str:
    try:
        return (read(path) or b"").decode("utf-8", "replace")
    except OSError:
        return ""
