"""convert and revert, against a libvirt in memory that can be killed, or refuse, at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import libvirt_loopnet.networks.conversion.convert
import libvirt_loopnet.networks.conversion.originals
import libvirt_loopnet.plugging.replug
from libvirt_loopnet.addresses.store import Store
from libvirt_loopnet.daemon.connection import DomainInfo, NetworkInfo
from libvirt_loopnet.errors import ConflictError, HostError, InputError, NotFoundError, StateError
from libvirt_loopnet.guests.interfaces import interfaces
from libvirt_loopnet.model import Port
from libvirt_loopnet.networks.conversion import convert as conversion
from libvirt_loopnet.networks.conversion.change import Change, Tools
from libvirt_loopnet.networks.conversion.convert import Wanted, convert_network
from libvirt_loopnet.networks.conversion.originals import Original, Originals
from libvirt_loopnet.networks.conversion.revert import revert_network
from libvirt_loopnet.networks.parsing import parse_network
from libvirt_loopnet.xml.schema import DIRECTORY
from tests.unit.fakelibvirt import FakeLibvirt, FakePlugs, KillableOriginals, Killed, Steps
from tests.unit.test_rewrite import definitions

XML = b"""<network>
  <name>default</name>
  <uuid>0f8b3a2e-5a5c-4d7a-9a53-3f5f6f1f5c11</uuid>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'/>
      <host mac='52:54:00:00:00:09' name='nine' ip='192.168.122.9'/>
      <host name='vm2' ip='192.168.122.22'/>
    </dhcp>
  </ip>
</network>
"""
UUID = "0f8b3a2e-5a5c-4d7a-9a53-3f5f6f1f5c11"
SPARE = "loopnet-0f8b3a2"
ONE, TWO = "11111111-0000-0000-0000-000000000001", "11111111-0000-0000-0000-000000000002"
MAC1, MAC2 = "52:54:00:00:00:01", "52:54:00:00:00:02"


def guest(name: str, uuid: str, mac: str, *, live: bool) -> DomainInfo:
    def xml(source: str, target: str) -> bytes:
        return (
            f"<domain><name>{name}</name><uuid>{uuid}</uuid><devices>"
            f"<interface type='network'><mac address='{mac}'/><source network='default'{source}/>"
            f"{target}<model type='virtio'/></interface></devices></domain>"
        ).encode()

    running = xml(" portid='x' bridge='virbr0'", "<target dev='vnet0'/>") if live else b""
    return DomainInfo(name, uuid, xml("", ""), running)


class World:
    """A host with libvirt's default network and two guests, the first one running."""

    def __init__(self, directory: Path, *, active: bool = True, autostart: bool = True) -> None:
        self.steps = Steps()
        self.libvirt = FakeLibvirt(self.steps)
        self.libvirt.known["default"] = NetworkInfo(
            "default", UUID, XML, XML if active else b"", autostart, True
        )
        self.libvirt.guests[ONE] = guest("vm1", ONE, MAC1, live=active)
        self.libvirt.guests[TWO] = guest("vm2", TWO, MAC2, live=False)
        if active:
            self.libvirt.plugged = [Port("default", MAC1, "vm1", ONE)]
            self.libvirt.taps["vnet0"] = "virbr0"
            self.libvirt.given = [(MAC1, IPv4Address("192.168.122.254"))]
        self.plugs = FakePlugs(self.libvirt)
        self.settled = 0
        self.store = Store(str(directory))
        self.originals = KillableOriginals(str(directory / "originals"), self.steps)
        self.tools = Tools(self.libvirt, self.store, self.originals, self.plugs, self._settle)

    def _settle(self) -> None:
        self.settled += 1

    def convert(self, restart: bool = False, **asked: object) -> Change:
        return convert_network(self.tools, "default", Wanted(**asked), restart=restart)  # type: ignore[arg-type]

    def revert(self, restart: bool = False) -> Change:
        return revert_network(self.tools, "default", restart=restart)

    @property
    def network(self) -> NetworkInfo:
        return self.libvirt.known["default"]

    def kept(self) -> dict[str, int]:
        return {each.mac: each.number for each in self.store.load("default")}

    def has_port(self) -> bool:
        return [port.mac for port in self.libvirt.plugged] == [MAC1]

    def is_plugged(self) -> bool:
        """The guest's tap is on the bridge, libvirt has a port for it, and no spare bridge is left."""
        return self.libvirt.taps["vnet0"] == "virbr0" and self.has_port() and not self.plugs.bridges


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(autouse=True, scope="module")
def no_neighbours() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libvirt_loopnet.networks.conversion.convert, "neighbours", lambda bridge: [])
        yield


def test_convert_defines_and_waits(world: World) -> None:
    change = world.convert()
    assert world.steps.log == ["save original", "define default"]
    assert (change.pending, change.restarted, change.plugged) == (True, False, ("vm1",))
    assert change.before == XML
    assert change.after == world.network.xml
    assert world.network.live_xml == XML
    assert change.network == parse_network(world.network.xml)


def test_addresses_are_kept(world: World) -> None:
    change = world.convert()
    assert change.network
    assert change.network.host == 253  # vm1 has .254 by lease
    assert world.kept() == {MAC1: 254, MAC2: 22, "52:54:00:00:00:09": 9}
    names = {each.mac: (each.name, each.uuid) for each in world.store.load("default")}
    assert names[MAC1] == ("vm1", ONE)
    assert names[MAC2] == ("vm2", TWO)
    assert names["52:54:00:00:00:09"] == ("nine", "")


def test_restart_plugs_guests_in_again(world: World) -> None:
    change = world.convert(restart=True)
    assert world.steps.log[2:] == [
        "begin restart",
        "stop default",
        "start default",
        "update vm1 to bridge",
        "update vm1 to network",
        "end restart",
    ]
    assert (change.pending, change.restarted) == (False, True)
    assert world.network.live_xml == world.network.xml
    assert world.is_plugged()
    assert world.settled == 1


def test_inactive_network_is_not_started(tmp_path: Path) -> None:
    world = World(tmp_path, active=False)
    change = world.convert(restart=True)
    assert (change.pending, change.restarted, world.network.active) == (False, False, False)


def test_twice_is_once(world: World) -> None:
    world.convert(restart=True)
    done = len(world.steps.log)
    again = world.convert()
    assert again.before == again.after
    assert again.reserved == ()
    assert not again.pending
    assert world.steps.log[done:] == []


def test_revert_is_exact(world: World) -> None:
    before = world.network
    world.convert(restart=True)
    world.libvirt.set_autostart("default", False)
    change = world.revert(restart=True)
    assert world.network == before
    assert (change.pending, change.restarted, change.warnings) == (False, True, ())
    assert world.is_plugged()
    assert world.originals.load("default") is None
    with pytest.raises(NotFoundError, match="was not converted"):
        world.revert()


def test_revert_waits_for_restart(world: World) -> None:
    world.convert(restart=True)
    waiting = world.revert()
    assert waiting.pending
    assert world.network.xml == XML
    assert world.network.live_xml != XML
    assert world.revert(restart=True).restarted
    assert world.network.live_xml == XML


def test_revert_brings_the_active_state_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.convert(restart=True)
    world.libvirt.stop("default")
    world.revert()
    assert world.network.active
    idle = World(tmp_path / "idle", active=False)
    idle.convert()
    idle.libvirt.start("default")
    idle.revert(restart=True)
    assert not idle.network.active


def test_revert_of_an_undefined_network(world: World) -> None:
    before = world.network
    world.convert(restart=True)
    del world.libvirt.known["default"]
    world.revert()
    assert world.network.xml == XML
    assert world.network == before


def test_revert_leaves_a_new_definition_alone(world: World) -> None:
    world.convert()
    world.libvirt.define(XML.replace(b"delay='0'", b"delay='1'"))
    with pytest.raises(ConflictError, match="redefined"):
        world.revert()
    world.convert()  # the new one is the original from now on
    world.revert()
    assert b"delay='1'" in world.network.xml


def test_loopnet_network_without_original_is_not_reverted(world: World) -> None:
    world.convert()
    world.originals.remove("default")
    world.convert(loop_prefix=IPv4Network("127.9.0.0/24"))
    with pytest.raises(NotFoundError):
        world.revert()


def test_change_of_prefix_keeps_the_first_original(world: World) -> None:
    world.convert(restart=True)
    change = world.convert(restart=True, loop_prefix=IPv4Network("127.9.0.0/24"))
    assert change.restarted
    assert world.kept()[MAC1] == 254
    world.revert(restart=True)
    assert world.network.xml == XML


def test_dry_run_changes_nothing(world: World) -> None:
    change = convert_network(world.tools, "default", dry_run=True)
    assert change.before != change.after
    assert world.steps.log == []
    assert world.kept() == {}
    world.convert()
    done = len(world.steps.log)
    assert revert_network(world.tools, "default", dry_run=True).after == XML
    assert len(world.steps.log) == done


def test_static_address_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [(MAC1, IPv4Address("192.168.122.50")), ("52:54:00:00:00:77", IPv4Address("192.168.122.60"))]
    monkeypatch.setattr(libvirt_loopnet.networks.conversion.convert, "neighbours", lambda bridge: seen)
    world.libvirt.given = []
    world.convert()
    assert world.kept()[MAC1] == 50
    assert 60 not in world.kept().values()  # nobody libvirt knows


def test_addresses_in_use_go_before_old_reservations(world: World) -> None:
    world.convert(restart=True)
    world.revert(restart=True)
    world.libvirt.given = [(MAC1, IPv4Address("192.168.122.33"))]
    world.convert()
    assert world.kept()[MAC1] == 33
    assert world.kept()[MAC2] == 22


def test_number_in_the_way_is_a_warning(world: World) -> None:
    world.libvirt.given = [(MAC1, IPv4Address("192.168.122.9"))]
    change = world.convert()
    assert any("192.168.122.9" in w or "127.1.0.9" in w for w in change.warnings)
    assert MAC1 not in world.kept()


@pytest.mark.parametrize(
    ("xml", "error"),
    [
        (XML.replace(b"mode='nat'", b"mode='bridge'"), InputError),
        (XML.replace(b"<ip address", b"<ip family='ipv6' address"), InputError),
        (XML.replace(b"255.255.255.0", b"255.0.0.0"), InputError),
    ],
)
def test_refusal_leaves_libvirt_alone(world: World, xml: bytes, error: type[Exception]) -> None:
    world.libvirt.known["default"] = world.network._replace(xml=xml, live_xml=xml)
    with pytest.raises(error):
        world.convert(restart=True)
    assert world.steps.log == []


def test_guest_of_another_driver_is_named(world: World) -> None:
    world.libvirt.plugged.append(Port("default", "52:54:00:00:00:55", "container", ONE))
    change = world.convert()
    assert change.plugged == ("container", "vm1")
    assert any("guest container" in warning for warning in change.warnings)


def test_running_guest_whose_address_is_unknown_is_named(world: World) -> None:
    world.libvirt.given = []
    assert any(f"no address of {MAC1}" in warning for warning in world.convert().warnings)


def test_what_cannot_be_kept_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    originals = Originals(str(tmp_path))
    (tmp_path / "default.xml" / "in the way").mkdir(parents=True)
    assert originals.path("default") == str(tmp_path / "default.xml")
    with pytest.raises(StateError, match=r"default\.xml"):
        originals.save("default", Original(b"<network/>", True, False))
    assert [path.name for path in tmp_path.iterdir()] == ["default.xml"]


def test_one_conversion_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_loopnet.networks.conversion.originals, "LOCK_SECONDS", 0.05)
    with world.originals.locked(), pytest.raises(StateError, match="locked by process"):
        world.convert()
    assert world.steps.log == []


def test_unknown_and_transient(world: World) -> None:
    with pytest.raises(NotFoundError):
        convert_network(world.tools, "absent")
    world.libvirt.known["default"] = world.network._replace(persistent=False)
    with pytest.raises(InputError, match="transient"):
        world.convert()


def test_hook_refuses_to_start(world: World) -> None:
    before = world.network

    def refuse(what: str, xml: bytes) -> None:
        if what == "start" and b"loopnet" in xml:
            raise HostError("libvirt: hook script failed: no nft")

    world.libvirt.refuse = refuse
    with pytest.raises(HostError, match="no nft; network default is as it was"):
        world.convert(restart=True)
    assert world.network == before
    assert world.is_plugged()
    assert not world.originals.restarting("default")


def test_guest_that_can_not_be_plugged_in(world: World) -> None:
    def refuse(what: str, xml: bytes) -> None:
        if what == "update" and b'type="network"' in xml:
            raise HostError("libvirt: all addresses are reserved")

    world.libvirt.refuse = refuse
    with pytest.raises(HostError, match=r"guest vm1 .* all addresses are reserved; restart"):
        world.convert(restart=True)
    left = interfaces(world.libvirt.guests[ONE].live_xml)[0]
    assert (left.kind, left.bridge) == ("bridge", SPARE)
    assert world.plugs.bridges == set()
    assert world.settled == 1
    world.libvirt.refuse = lambda what, xml: None
    world.convert(restart=True)  # what libvirt believes on the spare bridge is known again
    assert world.is_plugged()


def test_revert_that_can_not_plug_in_can_be_repeated(world: World) -> None:
    world.convert(restart=True)

    def refuse(what: str, xml: bytes) -> None:
        if what == "update":
            raise HostError("libvirt: no")

    world.libvirt.refuse = refuse
    with pytest.raises(HostError, match=r"not with guest vm1 .*: libvirt: no; restart: virsh shutdown vm1"):
        world.revert(restart=True)
    world.libvirt.refuse = lambda what, xml: None
    world.revert(restart=True)
    assert world.is_plugged()
    assert world.network.xml == XML
    assert world.originals.load("default") is None


def test_what_libvirt_says_is_not_enough(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device updated without complaint, a port in libvirt's list, and a tap that is nowhere."""
    monkeypatch.setattr(libvirt_loopnet.plugging.replug, "PATIENCE", 0.1)
    world.libvirt.believes_only = True
    with pytest.raises(HostError, match=r"guest vm1 .*: vnet0 is still not on virbr0; restart"):
        world.convert(restart=True)
    assert world.has_port()
    world.libvirt.believes_only = False
    world.convert(restart=True)
    assert world.is_plugged()


def test_a_tap_without_carrier_is_not_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_loopnet.plugging.replug, "PATIENCE", 0.1)
    world.plugs.dead.add("vnet0")
    with pytest.raises(HostError, match="guest vm1"):
        world.convert(restart=True)


def test_daemon_that_has_not_found_its_guests_yet(world: World) -> None:
    world.libvirt.late = 2
    world.convert(restart=True)
    assert world.is_plugged()


def test_daemon_that_does_not_find_a_guest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_loopnet.plugging.replug, "PATIENCE", 0.1)
    world.libvirt.late = 999
    with pytest.raises(HostError, match=r"guest vm1 .*: libvirt says that it does not run; restart"):
        world.convert(restart=True)


def run_killed(world: World, deed: Callable[[], object], last: int) -> bool:
    """Do it, killed before step ``last``; False when it came to its end before."""
    world.steps.log.clear()
    world.steps.last = last
    try:
        deed()
        return False
    except Killed:
        return True
    finally:
        world.steps.last = None
        world.store._locked = False


@pytest.mark.parametrize("restart", [False, True])
def test_killed_convert_can_be_reverted_or_repeated(tmp_path: Path, restart: bool) -> None:
    for last in range(20):
        for again in (False, True):
            world = World(tmp_path / f"{restart}{last}{again}")
            before = world.network
            killed = run_killed(world, lambda w=world: w.convert(restart), last)  # type: ignore[misc]
            assert world.network.xml == XML or parse_network(world.network.xml)
            if again:
                world.convert(restart=True)
                assert parse_network(world.network.live_xml)
                assert world.is_plugged()
                assert world.kept()[MAC1] == 254
            if world.originals.load("default"):
                world.revert(restart=True)
            assert world.network == before
            assert world.is_plugged()
            if not killed:
                return
    raise AssertionError("convert has more steps than thought")


def test_killed_revert_can_be_repeated(tmp_path: Path) -> None:
    for last in range(20):
        world = World(tmp_path / str(last))
        before = world.network
        world.convert(restart=True)
        killed = run_killed(world, lambda w=world: w.revert(restart=True), last)  # type: ignore[misc]
        assert world.network.xml == XML or parse_network(world.network.xml)
        if world.originals.load("default"):
            world.revert(restart=True)
        assert world.network == before
        assert world.is_plugged()
        if not killed:
            return
    raise AssertionError("revert has more steps than thought")


@settings(deadline=None)
@given(definitions(), st.booleans(), st.booleans())
def test_any_definition_comes_back(case: tuple[bytes, list[bytes]], active: bool, autostart: bool) -> None:
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            conversion, "check_schema", lambda *_: None
        )  # which of them it knows is the schema's age
        world = World(Path(directory), active=active, autostart=autostart)
        xml = case[0].replace(b"<name>n</name>", b"<name>default</name>")
        world.libvirt.known["default"] = world.network._replace(xml=xml, live_xml=xml if active else b"")
        before = world.network
        world.convert(restart=True)
        assert parse_network(world.network.xml)
        world.revert(restart=True)
        assert world.network == before


@pytest.mark.skipif(not Path(DIRECTORY, "network.rng").exists(), reason="libvirt's schemas are not installed")
def test_what_libvirt_would_refuse_is_found_first(world: World) -> None:
    xml = XML.replace(b"delay='0'", b"delay='x'")
    world.libvirt.known["default"] = world.network._replace(xml=xml)
    before = world.network
    with pytest.raises(InputError, match=r"network default, rewritten, line \d+: /network/bridge: "):
        world.convert()
    assert world.network == before
    assert world.originals.load("default") is None


def test_damaged_original(world: World) -> None:
    world.convert()
    path = Path(world.originals.path("default"))
    assert path.stat().st_mode & 0o77 == 0 or path.parent.stat().st_mode & 0o77 == 0
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StateError, match="does not end as it was written"):
        world.revert()
