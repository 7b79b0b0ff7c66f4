"""``loopnet guest-setup``: print what a guest of a native network needs, for its configuration.

Such a guest itself has an address in 127.0.0.0/8, and must be told to accept it. The formats::

  cloud-init      user data for the first boot
  networkd        a .network file for systemd-networkd
  networkmanager  a hook for NetworkManager's dispatcher; needs the file that sysctl prints as well
  ifupdown        a hook for ifupdown, dhclient or dhcpcd
  sysctl          a file for sysctl.d; enough if the guest has no ip rule and no dhclient
  smbios          XML for the guest's definition, for systemd 252 or later; nothing in the image
                  changes. --domain puts it into the definition of that guest

Guests of mapped networks need none of this. libvirt-loopnet(7) has a table of tested systems.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..errors import InputError, NotFoundError
from ..guests import setup, smbios
from ..guests.domains import parse_domain
from ..model import NATIVE, Network
from ..validation import check_mac, shown
from .shared.inventory import networks
from .shared.privileges import require_root


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "network", metavar="NETWORK", nargs="?", default="", help="by default, the only native network"
    )
    parser.add_argument("--format", choices=setup.FORMATS, required=True, help="one of those above")
    parser.add_argument("--mac", metavar="MAC", default="", help="networkd, smbios: only for this NIC")
    parser.add_argument(
        "--domain", metavar="GUEST", default="", help="smbios: put it into the definition of this guest"
    )


def run(arguments: Namespace) -> int:
    kind, mac = arguments.format, arguments.mac
    if mac and kind not in setup.WITH_PREFIX:
        raise InputError(f"--mac goes with --format networkd or smbios; {kind} asks for no NIC")
    if arguments.domain and kind != setup.SMBIOS:
        raise InputError("--domain goes with --format smbios; the others are for the guest itself")
    if arguments.domain and mac:
        raise InputError("--mac and --domain exclude each other; a guest's definition has its MAC addresses")
    if mac:
        mac = check_mac("--mac", mac)
    if arguments.domain:
        return _define(arguments.domain, arguments.network, arguments.connect)
    print(_text(kind, arguments.network, mac, arguments.connect), end="")
    return 0


def _text(kind: str, name: str, mac: str, uri: str) -> str:
    if kind in setup.WITH_PREFIX:
        network = choose(networks(uri).known, name)
        if kind == setup.NETWORKD:
            return setup.networkd(network.name, network.guest_prefix, mac)
        return smbios.fragment(setup.credentials([(network.name, network.guest_prefix, mac)]))
    if name:
        choose(networks(uri).known, name)
    if kind == setup.CLOUD_INIT:
        return setup.cloud_init()
    return setup.sysctl() if kind == setup.SYSCTL else setup.hook(kind)


def choose(known: tuple[Network, ...], name: str) -> Network:
    """The native network called ``name``, or the only one. Raises NotFoundError, InputError."""
    if name:
        found = next((network for network in known if network.name == name), None)
        if found is None:
            raise NotFoundError(f"there is no loopnet network {shown(name)}; see: loopnet status")
        if found.mode != NATIVE:
            raise InputError(f"network {found.name} is mapped: its guests need no preparation")
        return found
    native = [network for network in known if network.mode == NATIVE]
    if not native:
        raise NotFoundError("there is no native network; define one with: loopnet define NAME --mode native")
    if len(native) > 1:
        names = ", ".join(network.name for network in native)
        raise InputError(f"there are several native networks; name one of {names}")
    return native[0]


def _define(guest: str, name: str, uri: str) -> int:
    from ..daemon.connection import connect

    require_root("guest-setup --domain")
    known = networks(uri).known
    native = {n.name: n for n in ([choose(known, name)] if name else known) if n.mode == NATIVE}
    with connect(uri) as connection:
        before = connection.domain_definition(guest)
        nics = [nic for nic in parse_domain(before).nics if nic.network in native]
        if not nics:
            where = f"network {name}" if name else "a native network"
            raise NotFoundError(f"guest {shown(guest)} has no NIC on {where}; see: virsh domiflist {guest}")
        wanted = [(nic.network, native[nic.network].guest_prefix, nic.mac) for nic in nics]
        after = smbios.add(before, setup.credentials(wanted))
        if after != before:
            connection.define_domain(after)
    done = "is prepared" if after != before else "was prepared already"
    names = ", ".join(dict.fromkeys(nic.network for nic in nics))
    print(f"guest {guest} {done} for {names}; it takes effect at the next start")
    return 0
