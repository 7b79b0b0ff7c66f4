"""libvirt's domain XML: a guest's NICs, and moving them to another network.

Streamed, without a tree: of 100 KB a hook needs a few attributes.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError
from ..records import NamedTuple
from ..xml.tree import local_name, stream

_INTERFACE = ["domain", "devices", "interface"]


class Nic(NamedTuple):
    """A ``<interface>`` that is plugged into a libvirt network or a bridge."""

    network: str
    """'' for one that is plugged into a bridge by itself."""
    mac: str
    """Lower case; '' in a definition that libvirt has not completed yet."""
    tap: str
    """The tap's name; '' while the guest does not run."""
    bridge: str = ""
    """The bridge that it is plugged into; of a network's known only while the guest runs."""


class Domain(NamedTuple):
    """A guest, as far as networks are concerned."""

    name: str
    uuid: str
    nics: tuple[Nic, ...]


class _Reader:
    """Handlers for stream(): keeps the path of open elements and what is found on the way."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.name = self.uuid = ""
        self.nics: list[Nic] = []
        self.networks: list[str] = []
        """Of each <source> of an <interface type='network'>."""
        self._type = ""
        self._nic = Nic("", "", "")

    def start(self, tag: str, given: dict[str, str]) -> None:
        self.path.append(tag)
        if len(self.path) == 1 and tag != "domain":
            raise InputError(f"expected <domain>, got <{local_name(tag)}>; get it from: virsh dumpxml GUEST")
        if self.path == _INTERFACE:
            self._type = given.get("type", "")
            self._nic = Nic("", "", "")
        elif len(self.path) == 4 and self.path[:3] == _INTERFACE:
            self._part(tag, given)

    def _part(self, tag: str, given: dict[str, str]) -> None:
        if tag == "source":
            network, bridge = given.get("network", ""), given.get("bridge", "")
            self._nic = self._nic._replace(network=network, bridge=bridge)
            if self._type == "network" and "network" in given:
                self.networks.append(network)
        elif tag == "mac":
            self._nic = self._nic._replace(mac=given.get("address", "").lower())
        elif tag == "target":
            self._nic = self._nic._replace(tap=given.get("dev", ""))

    def end(self, _tag: str) -> None:
        if self.path == _INTERFACE and (self._nic.network or self._nic.bridge):
            self.nics.append(self._nic)
        self.path.pop()

    def text(self, piece: str) -> None:
        if len(self.path) == 2:
            if self.path[1] == "name":
                self.name += piece
            elif self.path[1] == "uuid":
                self.uuid += piece


def _read(data: bytes) -> _Reader:
    reader = _Reader()
    stream(data, reader.start, reader.end, reader.text)
    return reader


def parse_domain(data: bytes) -> Domain:
    """The guest that ``<domain>`` describes, with its NICs on libvirt networks and bridges in their order.

    Raises InputError when the XML is malformed or has another root.
    """
    reader = _read(data)
    return Domain(reader.name.strip(), reader.uuid.strip().lower(), tuple(reader.nics))


def move_networks(data: bytes, moves: Mapping[str, str]) -> bytes:
    """``data`` with each NIC of network ``a`` in network ``moves[a]``; all else stays as it is.

    Returns ``data`` itself when no NIC moves. Raises InputError as parse_domain does.
    """
    if all(moves.get(network, network) == network for network in _read(data).networks):
        return data
    from ..xml.document import Document  # 16 ms that only a guest that moves has to wait

    document = Document(data)
    for source in document.root.findall("devices/interface[@type='network']/source[@network]"):
        network = source.get("network", "")
        document.set(source, "network", moves.get(network, network))
    return document.render()
