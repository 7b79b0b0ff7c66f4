"""The ground of these tests: a host, guests, a LAN, an internet, and what goes back and forth there."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import NamedTuple

from tests.netns.lab import FAR, Lab, LabGuest, LabNetwork
from tests.netns.wire import PATIENCE, LeakWatch, Servers
from tests.sandbox import Namespace
from tests.sandbox.packages import provide

PORT = 7000
"""Where everybody has an echo server, TCP and UDP."""
FIELDS = {"mapped": ("mapped", False), "mapped-all": ("mapped", True), "native-all": ("native", True)}
"""Mode, and whether br_netfilter is on, a custom routing rule there, and rp_filter strict."""

PACKAGES = ("vsftpd", "nfs-ganesha", "nfs-ganesha-vfs", "libnfs-utils", "samba", "smbclient", "avahi-daemon")

DHCP_OPTIONS = (
    "dhcp-option=option:ntp-server,0.0.0.0", "dhcp-option=option:domain-search,example.org", "dhcp-option=43,01:02:03",
)  # fmt: skip
USERS = """
grep -q ^avahi: /etc/passwd || echo avahi:x:990:990::/:/bin/false >>/etc/passwd
grep -q ^avahi: /etc/group || echo avahi:x:990: >>/etc/group
"""


class Field(NamedTuple):
    """``one`` and ``two`` are guests of one network."""

    lab: Lab
    one: LabGuest
    two: LabGuest
    far: Namespace
    leaks: LeakWatch

    @property
    def host(self) -> Namespace:
        return self.lab.host

    @property
    def native(self) -> bool:
        return self.lab.mode == "native"

    @property
    def bridge(self) -> str:
        return self.one.network.model.bridge

    @property
    def host_loop(self) -> str:
        model = self.one.network.model
        return str(model.loop_address(model.host))

    @property
    def host_number(self) -> str:
        """The host as guests see it when it calls."""
        model = self.one.network.model
        return str(model.guest_address(model.host))

    @property
    def ways(self) -> dict[str, tuple[Namespace, Namespace, str, str]]:
        """By the words of the table: who begins, with whom, at which address, and who that one sees."""
        one, two = self.one, self.two
        return {
            "host to guest": (self.host, one.namespace, one.loop, self.host_number),
            "guest to host": (one.namespace, self.host, one.gateway, one.transit),
            "guest to guest": (one.namespace, two.namespace, two.address, one.address),
            "guest to internet": (one.namespace, self.far, FAR, self.lab.host_address),
        }


def with_options(network: LabNetwork, *options: str) -> LabNetwork:
    """The network with more lines for dnsmasq in its definition."""
    lines = "".join(f"<dnsmasq:option value='{option}'/>" for option in options)
    return network._replace(xml=network.xml.replace("</dnsmasq:options>", f"{lines}</dnsmasq:options>"))


@contextlib.contextmanager
def open_field(name: str) -> Iterator[Field]:
    """The field of this name in FIELDS; nothing of 127/8 and 247/8 may be on the LAN in the meantime."""
    mode, all_at_once = FIELDS[name]
    lab = Lab(mode, bridge_nf=all_at_once, ip_rule=all_at_once, rp_filter=all_at_once)
    with lab, Servers() as servers, LeakWatch(lab.lan, "lan0") as leaks:
        provide(lab, *PACKAGES)
        lab.host.sh(USERS)
        far = lab.add_far()
        far.run(["ip", "link", "set", "lo", "up"])
        network = with_options(lab.network(1), *DHCP_OPTIONS)
        lab.start(network, dnsmasq=True)
        one, two = lab.guest(network), lab.guest(network)
        for namespace in (lab.host, far, one.namespace, two.namespace):
            servers.both(namespace, ("0.0.0.0", PORT))
        yield Field(lab, one, two, far, leaks)
        assert leaks.frames
        assert leaks.take() == []


def raw_socket(namespace: Namespace, protocol: int) -> socket.socket:
    """Sends payloads of packets, receives whole packets, of an IP protocol."""
    made = namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol))
    made.settimeout(PATIENCE)
    return made
