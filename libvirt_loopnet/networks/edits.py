"""The edits that turn a definition into a loopnet one. All else stays as it is, and where."""

from __future__ import annotations

from collections.abc import Sequence

from ..model import NATIVE, Network, Reservation
from ..xml.document import Document, attributes, has_comments, make
from ..xml.tree import Element
from .dnsmasq_options import DIRECTORY, OPTION_TAG, OPTIONS_TAG, dnsmasq_options
from .elements import OWN_TAG, ipv4_elements, place, prefixes_of
from .new import dnsmasq_element, dnsmasq_option, host_attributes, own_attributes, own_metadata

_OWN_PATHS = (("dhcp-hostsdir", "loopnet"), ("addn-hosts", "loopnet-hosts"), ("conf-file", "loopnet-dnsmasq"))
"""Options with paths below DIRECTORY, and the ends of these."""


def rewrite(
    data: bytes,
    root: Element,
    network: Network,
    hosts: Sequence[Reservation],
    old: Network | None,
) -> bytes:
    """``data``, read as ``root``, as the definition of ``network`` with the ``hosts`` it reserves.

    ``old`` is the loopnet network the definition was before, None if it was none.
    """
    document = Document(data)
    _metadata(document, network, hosts)
    _forward(document)
    _dns(document)
    _ip(document, network)
    _routes(document, root, network, old)
    _options(document, root, network, old)
    return document.render()


def _metadata(document: Document, network: Network, hosts: Sequence[Reservation]) -> None:
    root = document.root
    own, metadata = root.find(f"metadata/{OWN_TAG}"), root.find("metadata")
    if own is not None:
        same_hosts = [attributes(child) for child in own.findall("*")] == [*map(host_attributes, hosts)]
        if attributes(own) != own_attributes(network) or not same_hosts:
            document.replace(own, own_metadata(network, hosts))
    elif metadata is not None:
        document.append(metadata, own_metadata(network, hosts))
    else:
        before = next(child for tag in ("uuid", "name") for child in root.findall(tag))
        document.insert(make("metadata", {}, own_metadata(network, hosts)), before)


def _forward(document: Document) -> None:
    """libvirt's other modes end in reject rules for sources they do not know."""
    forward = document.root.find("forward")
    if forward is None:
        first = next(ip for ip in document.root.findall("ip") if ip.get("family", "ipv4") == "ipv4")
        document.insert_before(make("forward", {"mode": "open"}), first)
        return
    document.set(forward, "mode", "open")
    for name in attributes(forward):
        if name != "mode":
            document.unset(forward, name)
    for child in forward.findall("*"):
        document.drop(child)


def _dns(document: Document) -> None:
    """Without DNS and <dhcp> libvirt starts no dnsmasq; the option port=0 says the same to it."""
    dns = document.root.find("dns")
    if dns is not None and dns.get("enable") == "no":
        document.unset(dns, "enable")


def _ip(document: Document, network: Network) -> None:
    ip = next(ip for ip in document.root.findall("ip") if ip.get("family", "ipv4") == "ipv4")
    document.set(ip, "address", str(network.loop_address(network.host)))
    if "netmask" in ip.attrib:
        document.set(ip, "netmask", str(network.loop_prefix.netmask))
    else:
        document.set(ip, "prefix", str(network.loop_prefix.prefixlen))
    for dhcp in ip.findall("dhcp"):
        gone = [*dhcp.findall("range"), *dhcp.findall("host")]
        if gone and len(gone) == len(dhcp) and not has_comments(dhcp):
            document.drop(dhcp)
        else:
            for child in gone:
                document.drop(child)


def _routes(document: Document, root: Element, network: Network, old: Network | None) -> None:
    """libvirt takes a route only through a gateway inside one of the network's own prefixes."""
    prefixes = prefixes_of(root, old)
    for route in document.root.findall("route"):
        number = place(route.get("gateway", ""), prefixes)
        if number is not None and number < network.loop_prefix.num_addresses:
            document.set(route, "gateway", str(network.loop_address(number)))


def _options(document: Document, root: Element, network: Network, old: Network | None) -> None:
    wanted = [*dnsmasq_options(network), *_replaced(root, network)]
    former = (*dnsmasq_options(old), *_replaced(root, old), *_boot(root, None)) if old else ()
    given = []
    for option in document.root.findall(f"{OPTIONS_TAG}/{OPTION_TAG}"):
        value = option.get("value", "")
        if value not in wanted and (value in former or _is_ours(value)):
            document.drop(option)
        given.append(value)
    missing = [option for option in wanted if option not in given]
    there = document.root.find(OPTIONS_TAG)
    if missing and there is not None:
        document.append(there, *map(dnsmasq_option, missing))
    elif missing:
        document.append(document.root, dnsmasq_element(missing))


def _is_ours(option: str) -> bool:
    """Of a network that was renamed."""
    key, _, path = option.partition("=")
    if not path.startswith(f"{DIRECTORY}/"):
        return False
    return (key, path.rpartition(".")[2]) in _OWN_PATHS


def _replaced(root: Element, network: Network) -> list[str]:
    """Options in the place of what libvirt writes only for a prefix with <range> or <host>."""
    ip = ipv4_elements(root)[0]
    options = _boot(root, network)
    if ip.get("localPtr") == "yes" and network.guest_prefix.prefixlen % 8 == 0:
        octets = str(network.guest_prefix.network_address).split(".")
        reverse = ".".join(reversed(octets[: network.guest_prefix.prefixlen // 8]))
        options.append(f"local=/{reverse}.in-addr.arpa/")
    dns = root.find("dns")
    if dns is not None and dns.get("enable") == "no":
        options.append("port=0")
    return options


def _boot(root: Element, network: Network | None) -> list[str]:
    """What a guest boots from the network; where no server is named, it is the host.

    dnsmasq would name the address that it serves DHCP from. In native mode that is the host number, with
    which guests begin nothing but DHCP.
    """
    host = f",,{network.guest_address(network.gateway)}" if network and network.mode == NATIVE else ""
    options = []
    for bootp in (
        bootp for dhcp in ipv4_elements(root)[0].findall("dhcp") for bootp in dhcp.findall("bootp")
    ):
        server = f",,{bootp.get('server')}" if bootp.get("server") else host
        options.append(f"dhcp-boot={bootp.get('file')}{server}")
    return options
