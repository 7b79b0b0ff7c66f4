#!/usr/bin/python3 -I
"""What packages do about networks; the scripts of the DEB and the RPM run this.

package-network define      the network "loopnet", unless there is one of that name
package-network stop        before removal: stop the loopnet networks without guests, and put converted ones
                            back; those with guests go on until they are stopped, and somebody is told
package-network back        after an installation: what an earlier removal left under guests goes
package-network undefine    take the definition away again, unless somebody has changed it

``define`` writes libvirt's file itself, so that no daemon has to run; a running one is told by
SIGHUP, on which it looks for hooks first and for definitions then. In a chroot all keep their hands
off the machine around it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Interface, IPv4Network

from libvirt_loopnet.addresses.store import DIRECTORY
from libvirt_loopnet.cli import main as loopnet
from libvirt_loopnet.commands.define import choose
from libvirt_loopnet.commands.shared.inventory import DEFINITIONS, networks_of_files
from libvirt_loopnet.commands.shared.prefix_options import Asked
from libvirt_loopnet.daemon import leftover, running, runstate
from libvirt_loopnet.daemon.connection import connect
from libvirt_loopnet.errors import LoopnetError
from libvirt_loopnet.host import dnsmasq, linux
from libvirt_loopnet.ipv6 import Choice
from libvirt_loopnet.networks.conversion.originals import Originals
from libvirt_loopnet.networks.new import new_network
from libvirt_loopnet.prefixes import transit_prefix
from libvirt_loopnet.xml.tree import parse

NAME = "loopnet"
PREFIX = IPv4Network("127.1.0.0/24")
DEFINITION = f"{DEFINITIONS}/{NAME}.xml"
RECORD = f"{DIRECTORY}/defined"
"""What sha256sum prints of the definition as we wrote it; postrm compares."""
URI = "network:///system"
"""Also where there is no QEMU."""
LIMIT = 60
"""Seconds for all of it: a hanging daemon must not hang the package manager."""


def main() -> int:
    actions = {"define": define, "stop": stop, "back": back, "undefine": undefine}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        print(f"usage: package-network {'|'.join(actions)}", file=sys.stderr)
        return 2
    signal.alarm(LIMIT)
    try:
        return actions[sys.argv[1]]()
    except (LoopnetError, OSError) as error:
        print(f"libvirt-loopnet: {error}", file=sys.stderr)
        return 1


# --- define --------------------------------------------------------------------------------------


def define() -> int:
    if os.path.lexists(DEFINITION) or os.path.exists(f"{runstate.RUN}/{NAME}.xml"):
        print(f"There is a network {NAME} already; it stays as it is.")
        return 0
    user = next(iter(_users()), "")
    if user:
        print(f"Network {NAME} is not defined, since {user}. One with a free prefix: loopnet define")
        return 0
    bridge = _free_bridge()
    _write(_definition(bridge))
    print(f"Defined network {NAME}: guests at {PREFIX}, bridge {bridge}. Start it: virsh net-start {NAME}")
    if not _chrooted():
        _tell_daemons()
    return 0


def _users() -> Iterator[str]:
    """Who has what our network would have."""
    for path, data in _definitions():
        for prefix in _prefixes(data):
            if prefix.overlaps(PREFIX):
                yield f"network {os.path.basename(path)[:-4]} has {prefix}"
    if _chrooted():
        return
    observed = linux.Linux().observe(())
    pairs = [("lo", entry.address) for entry in observed.lo]
    pairs += [(entry.dev, entry.address) for entry in observed.addresses]
    for dev, address in pairs:
        if address in PREFIX or address in transit_prefix(PREFIX):
            yield f"{dev} has {address}"


def _definitions() -> Iterator[tuple[str, bytes]]:
    """Every network that libvirt knows of, ours or not."""
    for directory in (DEFINITIONS, runstate.RUN):
        with suppress(OSError):
            for entry in sorted(os.listdir(directory)):
                if entry.endswith(".xml"):
                    with open(f"{directory}/{entry}", "rb") as file:
                        yield f"{directory}/{entry}", file.read()


def _prefixes(data: bytes) -> Iterable[IPv4Network]:
    """The prefixes of all <ip> elements; of a file that makes no sense, none."""
    with suppress(LoopnetError, ValueError):
        root = parse(data)
        network = root.find("network") or root
        for ip in network.findall("ip"):
            length = ip.get("prefix") or ip.get("netmask")
            if length and ip.get("family") in ("", "ipv4"):
                yield IPv4Interface(f"{ip.get('address')}/{length}").network


def _free_bridge() -> str:
    """virbr0 is the default network's, also where that isn't installed yet."""
    named = b"\n".join(data for _, data in _definitions())
    for number in range(1, 1000):
        name = f"virbr{number}"
        quoted = (b"'%s'" % name.encode(), b'"%s"' % name.encode())
        if not linux.is_device(name) and not any(each in named for each in quoted):
            return name
    raise OSError("no name virbr1 to virbr999 is free")


def _definition(bridge: str) -> bytes:
    """What ``virsh net-define`` would make of ``loopnet define``: a file read at start gets nothing added."""
    # Copies of an image would share the prefix in IPv6 (RFC 4193, 3.2.1).
    chosen = choose(NAME, Asked(PREFIX, None, None, ipv6=Choice() if _chrooted() else None), ())
    return new_network(
        NAME,
        chosen.loop_prefix,
        chosen.guest_prefix,
        chosen.mode,
        ipv6=chosen.ipv6,
        uuid=str(uuid.uuid4()),
        bridge=bridge,
        bridge_mac="52:54:00:" + os.urandom(3).hex(":"),
    )


def _write(data: bytes) -> None:
    os.makedirs(DEFINITIONS, mode=0o700, exist_ok=True)
    os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
    temporary = f"{DEFINITIONS}/.{NAME}.new"
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, DEFINITION)  # unlike a rename it never replaces
    finally:
        os.unlink(temporary)
    with open(RECORD, "w") as file:
        file.write(f"{hashlib.sha256(data).hexdigest()}  {DEFINITION}\n")


def _tell_daemons() -> None:
    """Returns when a running daemon knows the network, and so the hooks: they come first."""
    tool = os.path.join(os.path.dirname(os.path.realpath(__file__)), "reload-libvirt")
    done = subprocess.run([tool], stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        return
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(LoopnetError), connect(URI, read_only=True) as connection:
            connection.network(NAME)
            return
        time.sleep(0.05)
    print(f"libvirt doesn't know it yet; if net-start fails: systemctl restart {running.units()}")


# --- stop, undefine ------------------------------------------------------------------------------


def stop() -> int:
    if _chrooted():
        return 0
    busy = {network.name for network in runstate.active_networks() if runstate.live_ports(network.name)}
    if not _revert(busy):
        return 1
    for network in [network for network in runstate.active_networks() if network.name not in busy]:
        print(f"Stopping network {network.name}")
        try:
            with connect(URI) as connection:
                connection.stop(network.name)
        except LoopnetError as error:
            print(f"libvirt-loopnet: {error}; going on without libvirt", file=sys.stderr)
            dnsmasq.stop(network.name)
            linux.delete_device(network.bridge)
    stay = leftover.leave()
    if stay:
        print(f"libvirt-loopnet: {leftover.told(stay)}")
        return 0
    return _clean_up()


def back() -> int:
    if not _chrooted():
        leftover.forget()
    return 0


def _revert(busy: set[str]) -> bool:
    """Networks that were libvirt's before would serve nobody without the hooks."""
    found = networks_of_files()
    originals = Originals()
    for name in [network.name for network in found.known if os.path.exists(originals.path(network.name))]:
        if loopnet(["revert", name, *([] if name in busy else ["--restart"])]):
            return False
    return True


def _clean_up() -> int:
    """Whatever is left; that it can't be taken away is no reason to keep the package."""
    with open(os.devnull, "w") as nowhere:
        sys.stdout, kept = nowhere, sys.stdout
        loopnet(["cleanup"])
        sys.stdout = kept
    return 0


def undefine() -> int:
    if not _is_as_written():
        return 0
    import libvirt

    with suppress(libvirt.libvirtError):
        if not _chrooted():
            libvirt.registerErrorHandler(lambda *_: None, None)
            libvirt.open(URI).networkLookupByName(NAME).undefine()
    for path in (DEFINITION, f"{DEFINITIONS}/autostart/{NAME}.xml", RECORD):
        with suppress(FileNotFoundError):
            os.unlink(path)
    return 0


def _is_as_written() -> bool:
    try:
        with open(RECORD) as record, open(DEFINITION, "rb") as file:
            return record.read().split()[:1] == [hashlib.sha256(file.read()).hexdigest()]
    except OSError:
        return False


def _chrooted() -> bool:
    try:
        return not os.path.samefile("/proc/1/root", "/")
    except OSError:
        return True


if __name__ == "__main__":
    sys.exit(main())
