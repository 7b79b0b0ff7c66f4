"""A sandbox in which the test plays libvirt: it makes bridges, writes run state and calls the hooks.

Guests are network namespaces behind veth pairs that stand for taps. What libvirt 9.0 does, and in
which order, is copied from its network driver (src/network/bridge_driver.c).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

from libvirt_loopnet.hook import OPERATIONS
from libvirt_loopnet.model import ALL, FREE, NATIVE, Network
from libvirt_loopnet.networks.new import new_network
from libvirt_loopnet.networks.parsing import parse_network
from tests.sandbox import Namespace, Sandbox
from tests.sandbox.waiting import wait

from .forks import HOOK, Forked
from .wire import PATIENCE

HOOKS = "/etc/libvirt/hooks"
RUN = "/run/libvirt/network"
STATE = "/var/lib/libvirt-loopnet"
DNSMASQ = "/var/lib/libvirt/dnsmasq"
FAR, FAR_ROUTER, FAR_MTU = "203.0.113.9", "203.0.113.1", 1300
"""A server behind the LAN's router, over a link that takes small packets only."""
_UUIDS = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")


class LabNetwork(NamedTuple):
    """A network and the definition that it comes from."""

    model: Network
    xml: str

    def hook_data(self, port: str = "") -> str:
        return f"<hookData>{self.xml}{port}</hookData>"


class LabGuest(NamedTuple):
    """A NIC of a guest: a namespace with the device eth0, and its tap on the host."""

    name: str
    network: LabNetwork
    mac: str
    number: int
    """Its host number; what it has for an address before it is admitted is made up."""
    tap: str
    namespace: Namespace

    @property
    def address(self) -> str:
        """As the guest sees itself."""
        return str(self.network.model.guest_address(self.number))

    @property
    def loop(self) -> str:
        """As people on the host call it."""
        return str(self.network.model.loop_address(self.number))

    @property
    def transit(self) -> str:
        """As services of the host see it."""
        return str(self.network.model.transit_address(self.number))

    @property
    def ipv6(self) -> str:
        """As everybody calls it, where its network has IPv6."""
        return str(self.network.model.ipv6_address(self.number))

    @property
    def gateway(self) -> str:
        return str(self.network.model.guest_address(self.network.model.gateway))

    @property
    def port_xml(self) -> str:
        return (
            f"<networkport><uuid>{uuid.uuid5(_UUIDS, self.tap)}</uuid><owner>"
            f"<name>{self.name}</name><uuid>{guest_uuid(self.name)}</uuid></owner>"
            f"<mac address='{self.mac}'/>"
            f"<plug type='network' bridge='{self.network.model.bridge}'/></networkport>"
        )

    @property
    def domain_xml(self) -> str:
        return domain_xml(self.name, [self])


def guest_uuid(name: str) -> str:
    return str(uuid.uuid5(_UUIDS, name))


def domain_xml(name: str, nics: list[LabGuest]) -> str:
    """A live domain, as the qemu hook is given it, with what matters of it."""
    interfaces = "".join(
        f"<interface type='network'><mac address='{nic.mac}'/>"
        f"<source network='{nic.network.model.name}' bridge='{nic.network.model.bridge}'/>"
        f"<target dev='{nic.tap}'/><model type='virtio'/></interface>"
        for nic in nics
    )
    return (
        f"<domain type='kvm' id='1'><name>{name}</name><uuid>{guest_uuid(name)}</uuid>"
        f"<devices>{interfaces}</devices></domain>"
    )


def network_xml(
    index: int,
    mode: str,
    *,
    guest_prefix: str = "",
    length: int = 24,
    addresses: str = FREE,
    internet: str = ALL,
    ipv6: str = "",
) -> str:
    """The live definition of network number ``index``, 127.INDEX.0.0, on bridge virbrINDEX."""
    name = f"net{index}"
    loop = ipaddress.IPv4Network(f"127.{index}.0.0/{length}")
    guest = ipaddress.IPv4Network(guest_prefix or f"10.127.{index}.0/{length}")
    own = loop if mode == NATIVE else guest
    text = new_network(
        name,
        loop,
        own,
        mode,
        addresses,
        internet,
        ipaddress.IPv6Network(ipv6) if ipv6 else None,
        uuid=guest_uuid(name),
        bridge=f"virbr{index}",
        bridge_mac=bridge_mac(index),
    )
    return text.decode().replace('"', "'")  # as libvirt writes


def bridge_mac(index: int) -> str:
    return f"52:54:00:b0:00:{index:02x}"


def nic_mac(number: int) -> str:
    return f"52:54:00:aa:00:{number:02x}"


class Lab(Sandbox):
    """A sandbox whose networks and guests are made by the methods here; lan0 is its LAN's wire.

    Hooks and `loopnet` are forked, see forks.py; with `starts` they are started, and hooks are while that is set.
    """

    def __init__(
        self,
        mode: str = "mapped",
        *,
        bridge_nf: bool = False,
        ip_rule: bool = False,
        rp_filter: bool = False,
        lan_prefix: str = "10.127.1.0/24",
        addresses: str = FREE,
        starts: bool = False,
    ) -> None:
        super().__init__(
            libvirtd=False, lan_prefix=lan_prefix, bridge_nf=bridge_nf, ip_rule=ip_rule,
            rp_filter=rp_filter, ip_forward=True,
        )  # fmt: skip
        self.mode = mode
        self.addresses = addresses
        """Which kind its networks are of, if they don't say themselves."""
        self.environment: list[str] = []
        """VARIABLE=VALUE for hooks that are started, beside the little that libvirt gives them."""
        self.starts = starts
        if not starts:
            self.host = Forked(self._holder, self.host.environment)
        self._taps = 0
        self._active: dict[str, LabNetwork] = {}

    def namespace(self, name: str) -> Namespace:
        """The network namespace ``name`` of ``ip netns``."""
        return Namespace(self._holder, {}, network=f"/run/netns/{name}")

    def add_far(self) -> Namespace:
        """The server FAR: two hops away, with a small path MTU."""
        self.host.sh(
            "ip netns add far\n"
            f"ip -n lan link add far0 mtu {FAR_MTU} type veth peer name eth0 mtu {FAR_MTU} netns far\n"
            f"ip -n lan address add {FAR_ROUTER}/24 dev far0; ip -n lan link set far0 up\n"
            "ip netns exec lan sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'\n"
            f"ip -n far address add {FAR}/24 dev eth0; ip -n far link set eth0 up\n"
            f"ip -n far route add default via {FAR_ROUTER}"
        )
        return self.namespace("far")

    # --- hooks ------------------------------------------------------------------------------------

    def hook(
        self, driver: str, name: str, operation: str, xml: str, *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Call an installed hook as libvirt does: argv, stdin, hardly any environment."""
        path = f"{HOOKS}/{driver}.d/50-loopnet"
        arguments = [name, operation, "begin", "-"]
        # The script that starts Python starts it for these only.
        if isinstance(self.host, Forked) and not self.starts and (driver, operation) in OPERATIONS:
            return self.host.fork(HOOK, [path, driver, *arguments], {"LC_ALL": "C"}, xml, check=check)
        argv = ["env", "-i", "LC_ALL=C", *self.environment, path, *arguments]
        return self.host.run(argv, input=xml, check=check)

    def network_hook(
        self, network: LabNetwork, operation: str, *, port: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        data = network.hook_data(port)
        return self.hook("network", network.model.name, operation, data, check=check)

    # --- networks ---------------------------------------------------------------------------------

    def network(
        self,
        index: int,
        *,
        guest_prefix: str = "",
        length: int = 24,
        addresses: str = "",
        internet: str = ALL,
        ipv6: str = "",
    ) -> LabNetwork:
        """A definition; nothing is started."""
        xml = network_xml(
            index,
            self.mode,
            guest_prefix=guest_prefix,
            length=length,
            addresses=addresses or self.addresses,
            internet=internet,
            ipv6=ipv6,
        )
        model = parse_network(xml.encode())
        assert model is not None
        return LabNetwork(model, xml)

    def start(self, network: LabNetwork, *, dnsmasq: bool = False) -> None:
        """virsh net-start; with ``dnsmasq`` as libvirt configures it."""
        self.network_hook(network, "start")
        self.make_bridge(network)
        if dnsmasq:
            self._start_dnsmasq(network)
        self.network_hook(network, "started")
        self.note(network)

    @property
    def active(self) -> list[LabNetwork]:
        return list(self._active.values())

    def note(self, network: LabNetwork) -> None:
        """It is active: libvirt's own record of that."""
        self._active[network.model.name] = network
        self.path(RUN).mkdir(parents=True, exist_ok=True)
        status = self.path(f"{RUN}/{network.model.name}.xml")
        status.write_text(f"<networkstatus>{network.xml}</networkstatus>")

    def make_bridge(self, network: LabNetwork) -> None:
        """networkStartNetworkVirtual: with IPv6 off, as the network has no IPv6 address."""
        model = network.model
        host = f"{model.loop_address(model.host)}/{model.loop_prefix.prefixlen}"
        bridge = model.bridge
        self.host.sh(
            f"ip link add {bridge} address {model.bridge_mac} type bridge forward_delay 0\n"
            f"echo 1 >/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6\n"
            f"ip address add {host} brd + scope global dev {bridge}; ip link set {bridge} up"
        )

    def _start_dnsmasq(self, network: LabNetwork) -> None:
        """networkDnsmasqConfContents, less the lease helper, which needs libvirt's own files."""
        name, bridge = network.model.name, network.model.bridge
        options = re.findall(r"<dnsmasq:option value='([^']*)'", network.xml)
        lines = [
            "strict-order", f"domain={name}", "expand-hosts", f"pid-file={RUN}/{name}.pid",
            "except-interface=lo", "bind-dynamic", f"interface={bridge}",
            f"dhcp-leasefile={DNSMASQ}/{name}.leases", *options,
        ]  # fmt: skip
        self.path(RUN).mkdir(parents=True, exist_ok=True)
        self.path(f"{DNSMASQ}/{name}.conf").write_text("\n".join(lines) + "\n")
        self.host.run(["dnsmasq", f"--conf-file={DNSMASQ}/{name}.conf"])

    def stop(self, network: LabNetwork) -> None:
        """virsh net-destroy: status, ports and bridge are gone before the hook runs."""
        self.remove_bridge(network)
        self.network_hook(network, "stopped")

    def remove_bridge(self, network: LabNetwork) -> None:
        name, bridge = network.model.name, network.model.bridge
        self._active.pop(name, None)
        self.host.sh(
            f"rm -rf {RUN}/{name}.xml {RUN}/{name}\n"
            f"[ ! -e {RUN}/{name}.pid ] || kill $(cat {RUN}/{name}.pid)\n"
            f"rm -f {RUN}/{name}.pid {DNSMASQ}/{name}.conf {DNSMASQ}/{name}.leases\n"
            f"[ ! -e /sys/class/net/{bridge} ] || ip link delete {bridge}"
        )

    def clean(self) -> None:
        """Stop what was started, delete what was made: for a test after one that failed."""
        for network in list(self._active.values()):
            self.stop(network)
        self.host.sh(
            "cd /sys/class/net; for link in virbr* vnet*; do [ ! -e $link ] || ip link delete $link; done"
        )

    # --- guests -----------------------------------------------------------------------------------

    def guest(  # type: ignore[override] # without libvirt there are no guests of Sandbox's kind
        self,
        network: LabNetwork,
        mac: str = "",
        *,
        name: str = "",
        admit: bool = True,
        bind: bool = True,
    ) -> LabGuest:
        """Start a guest with a static address: prepare, port-created, tap, qemu start, then it runs.

        With ``admit=False`` libvirt's hooks never hear of it; with ``bind=False`` the qemu hook does
        not, as for a hot-plugged NIC.
        """
        self._taps += 1
        tap, own_mac = f"vnet{self._taps}", mac or nic_mac(self._taps)
        guest = LabGuest(
            name or f"vm{self._taps}", network, own_mac, 100 + self._taps, tap,
            self.namespace(f"g{self._taps}"),
        )  # fmt: skip
        if admit:
            self.create_port(guest)
            guest = guest._replace(number=self.reserved(network)[own_mac])
        self._plug(guest, f"g{self._taps}")
        if admit and bind:
            self.hook("qemu", guest.name, "start", guest.domain_xml)
        self._boot(guest)
        return guest

    def second_nic(self, guest: LabGuest) -> LabGuest:
        """Start ``guest`` with one more NIC on the same network: its eth1, which is a LabGuest as well."""
        self._taps += 1
        nic = LabGuest(
            guest.name, guest.network, nic_mac(self._taps), 0, f"vnet{self._taps}", guest.namespace
        )
        self.create_port(nic)
        nic = nic._replace(number=self.reserved(guest.network)[nic.mac])
        self._plug(nic, guest.tap.replace("vnet", "g"), "eth1")
        self.hook("qemu", guest.name, "start", domain_xml(guest.name, [guest, nic]))
        length = guest.network.model.guest_prefix.prefixlen
        nic.namespace.sh(f"ip address add {nic.address}/{length} scope global dev eth1; ip link set eth1 up")
        return nic

    def adopt(self, network: LabNetwork, inner: Lab, name: str) -> LabGuest:
        """Start ``inner``, a whole host, as a guest: its uplink0 is a NIC on this host's network from now on.

        Its own networks are started afterwards. It asks this host for names.
        """
        self._taps += 1
        mac = nic_mac(self._taps)
        guest = LabGuest(name, network, mac, 0, f"vnet{self._taps}", inner.host)
        self.create_port(guest)
        guest = guest._replace(number=self.reserved(network)[mac])
        link = [
            "ip", "link", "add", guest.tap, "address", "fe" + mac[2:], "type", "veth",
            "peer", "name", "uplink0", "address", mac, "netns", str(inner.pid),
        ]  # fmt: skip
        inner.host.sh("ip link delete uplink0")
        # A process of this machine, as it alone has a number for the other namespace.
        self.host.call(lambda: subprocess.run(link, check=True, timeout=10))
        inner.host.sh("echo 0 >/proc/sys/net/ipv6/conf/uplink0/accept_dad")
        self.host.sh(f"ip link set {guest.tap} master {network.model.bridge} up")
        self.hook("qemu", guest.name, "start", guest.domain_xml)
        self._boot(guest, "uplink0")
        inner.host_address, inner.router_address = guest.address, guest.gateway
        model = network.model
        dns = str(model.transit_address(model.host)) if model.mode == NATIVE else guest.gateway
        inner.path("/etc/resolv.conf").write_text(f"nameserver {dns}\n")
        return guest

    def create_port(self, guest: LabGuest) -> None:
        self.network_hook(guest.network, "port-created", port=guest.port_xml)
        ports = self.path(f"{RUN}/{guest.network.model.name}/ports")
        ports.mkdir(parents=True, exist_ok=True)
        (ports / f"{uuid.uuid5(_UUIDS, guest.tap)}.xml").write_text(guest.port_xml)

    def destroy(self, guest: LabGuest) -> None:
        """virsh destroy: the tap is gone, then qemu stopped, then port-deleted."""
        self.host.sh(f"ip link delete {guest.tap}")
        self.hook("qemu", guest.name, "stopped", guest.domain_xml)
        self.network_hook(guest.network, "port-deleted", port=guest.port_xml)
        port = f"{RUN}/{guest.network.model.name}/ports/{uuid.uuid5(_UUIDS, guest.tap)}.xml"
        self.path(port).unlink(missing_ok=True)

    def reserved(self, network: LabNetwork) -> dict[str, int]:
        """Host numbers by MAC address, as the package's store has them."""
        text = self.path(f"{STATE}/{network.model.name}.reservations").read_text()
        lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
        return {fields[1]: int(fields[0]) for fields in lines}

    def _plug(self, guest: LabGuest, namespace: str, device: str = "eth0") -> None:
        host_mac = "fe" + guest.mac[2:]  # as libvirt has it, so that the bridge keeps its own
        self.host.sh(
            f"[ -e /run/netns/{namespace} ] || ip netns add {namespace}\n"
            f"ip link add {guest.tap} address {host_mac} type veth "
            f"peer name {device} address {guest.mac} netns {namespace}\n"
            # its IPv6 address is there at once, and not in the middle of a comparison
            f"echo 0 >/proc/sys/net/ipv6/conf/{guest.tap}/accept_dad\n"
            f"ip link set {guest.tap} master {guest.network.model.bridge} up"
        )

    def _boot(self, guest: LabGuest, device: str = "eth0") -> None:
        native = guest.network.model.mode == NATIVE
        length = guest.network.model.guest_prefix.prefixlen
        lo = "address add 127.0.0.1/16 dev lo\naddress delete 127.0.0.1/8 dev lo\n" if native else ""
        guest.namespace.sh(
            f"{'echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet' if native else ''}\n"
            "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter\n"
            # by one ip, as there are hundreds of guests
            f"ip -batch - <<'END'\nlink set lo up\n{lo}"
            f"address add {guest.address}/{length} scope global dev {device}\nlink set {device} up\n"
            f"route add default via {guest.gateway}\nEND"
        )
        # The bridge's port forwards once the kernel has told of the carrier, for which it takes up to a second
        # (linkwatch_schedule_work() in net/core/link_watch.c).
        port = self.path(f"/sys/class/net/{guest.tap}/brport/state")
        with contextlib.suppress(AssertionError):
            eventually(lambda: not port.exists() or port.read_text() == "3\n", 2.0)

    # --- looking ----------------------------------------------------------------------------------

    def neighbours(self, namespace: Namespace) -> dict[str, str]:
        """MAC addresses by IPv4 address."""
        entries = json.loads(namespace.run(["ip", "-j", "-4", "neighbour"]).stdout or "[]")
        return {entry["dst"]: entry["lladdr"] for entry in entries if "lladdr" in entry}

    def rules(self) -> str:
        """Everything nft has, without counters."""
        return self.host.run(["nft", "--stateless", "list", "ruleset"]).stdout

    def syslog(self) -> str:
        return self.path("/var/log/syslog").read_text()


def eventually(check: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until ``check()`` is true."""
    wait(check, "such state", seconds)


@contextlib.contextmanager
def bound_over(lab: Lab, program: str, script: str) -> Iterator[None]:
    """``program`` (a full path) is ``script`` for a while; itself it is /run/real/NAME then."""
    name = program.rpartition("/")[2]
    lab.host.sh(f"mkdir -p /run/real /run/fake; cp -L {program} /run/real/{name}")
    fake = lab.path(f"/run/fake/{name}")
    fake.write_text(script)
    fake.chmod(0o755)
    lab.host.sh(f"mount --bind /run/fake/{name} $(readlink -f {program})")
    try:
        yield
    finally:
        lab.host.sh(f"umount $(readlink -f {program}); rm -r /run/real /run/fake")
