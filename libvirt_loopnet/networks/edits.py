"""The edits that turn a definition into a loopnet one. All else keeps its bytes and place."""

from __future__ import annotations

from collections.abc import Sequence

from ..model import NATIVE, Network, Reservation
from ..xml.edit import Edit, element_end, raw_tag
from ..xml.editor import Editor
from ..xml.tree import Element
from .dnsmasq_options import DIRECTORY, DNSMASQ_NAMESPACE, OPTION_TAG, OPTIONS_TAG, dnsmasq_options
from .elements import ipv4_elements, own_element, place, prefixes_of
from .new import host_attributes, own_attributes, own_metadata, start_tag

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
    editor = Editor(data, root)
    _metadata(editor, network, hosts)
    _forward(editor)
    _dns(editor)
    _ip(editor, network)
    _routes(editor, network, old)
    _options(editor, network, old)
    return editor.apply()


def _metadata(editor: Editor, network: Network, hosts: Sequence[Reservation]) -> None:
    own = own_element(editor.root)
    lead = editor.lead + editor.unit
    text = own_metadata(network, hosts, lead, editor.unit)
    metadata = editor.root.first("metadata")
    if own is not None:
        same_hosts = [child.attributes for child in own.children] == [*map(host_attributes, hosts)]
        if own.attributes != own_attributes(network) or not same_hosts:
            editor.replace(own, text)
    elif metadata is not None:
        editor.append(metadata, [text], 1)
    else:
        before = editor.root.first("uuid") or editor.root.first("name") or editor.root
        at = element_end(editor.data, before)
        text = editor.lead + b"<metadata>" + lead + text + editor.lead + b"</metadata>"
        editor.edits.append(Edit(at, at, text))


def _forward(editor: Editor) -> None:
    """libvirt's other modes end in reject rules for sources they do not know."""
    forward = editor.root.first("forward")
    if forward is None:
        at = ipv4_elements(editor.root)[0].start
        editor.edits.append(Edit(at, at, b"<forward mode='open'/>" + editor.lead))
        return
    editor.set_attribute(forward, "mode", "open")
    for name in forward.attributes:
        if name != "mode":
            editor.drop_attribute(forward, name)
    for child in forward.children:
        editor.drop(child)


def _dns(editor: Editor) -> None:
    """Without DNS and <dhcp> libvirt starts no dnsmasq; the option port=0 says the same to it."""
    dns = editor.root.first("dns")
    if dns is not None and dns.get("enable") == "no":
        editor.drop_attribute(dns, "enable")


def _ip(editor: Editor, network: Network) -> None:
    ip = ipv4_elements(editor.root)[0]
    editor.set_attribute(ip, "address", str(network.loop_address(network.host)))
    if "netmask" in ip.attributes:
        editor.set_attribute(ip, "netmask", str(network.loop_prefix.netmask))
    else:
        editor.set_attribute(ip, "prefix", str(network.loop_prefix.prefixlen))
    for dhcp in ip.all("dhcp"):
        gone = [child for child in dhcp.children if child.tag in ("range", "host")]
        if gone and len(gone) == len(dhcp.children) and not _comments(editor.data, dhcp):
            editor.drop(dhcp)
        else:
            for child in gone:
                editor.drop(child)


def _comments(data: bytes, element: Element) -> bool:
    return b"<!--" in data[element.start : element.close]


def _routes(editor: Editor, network: Network, old: Network | None) -> None:
    """libvirt takes a route only through a gateway inside one of the network's own prefixes."""
    prefixes = prefixes_of(editor.root, old)
    for route in editor.root.all("route"):
        number = place(route.get("gateway"), prefixes)
        if number is not None and number < network.loop_prefix.num_addresses:
            editor.set_attribute(route, "gateway", str(network.loop_address(number)))


def _options(editor: Editor, network: Network, old: Network | None) -> None:
    wanted = [*dnsmasq_options(network), *_replaced(editor.root, network)]
    former = (*dnsmasq_options(old), *_replaced(editor.root, old), *_boot(editor.root, None)) if old else ()
    given = []
    for options in editor.root.all(OPTIONS_TAG):
        for option in options.all(OPTION_TAG):
            value = option.get("value")
            if value not in wanted and (value in former or _is_ours(value)):
                editor.drop(option)
            given.append(value)
    missing = [option for option in wanted if option not in given]
    if missing:
        _add_options(editor, missing)


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
    dns = root.first("dns")
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
    for bootp in (bootp for dhcp in ipv4_elements(root)[0].all("dhcp") for bootp in dhcp.all("bootp")):
        server = f",,{bootp.get('server')}" if bootp.get("server") else host
        options.append(f"dhcp-boot={bootp.get('file')}{server}")
    return options


def _add_options(editor: Editor, values: Sequence[str]) -> None:
    there = editor.root.first(OPTIONS_TAG)
    if there is not None:
        prefix = raw_tag(editor.data, there.start).decode().rpartition("options")[0]
        lines = [start_tag(f"{prefix}option", {"value": value}) for value in values]
        editor.append(there, lines, 1)
        return
    lead = editor.lead + editor.unit
    lines = [start_tag("dnsmasq:option", {"value": value}) for value in values]
    text = b"".join(
        (
            start_tag("dnsmasq:options", {"xmlns:dnsmasq": DNSMASQ_NAMESPACE}, ">"),
            *(lead + line for line in lines),
            editor.lead,
            b"</dnsmasq:options>",
        )
    )
    editor.append(editor.root, [text], 0)
