"""Which running guests are not plugged in, by libvirt's status files and the kernel's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_loopnet.daemon import domains, runstate
from libvirt_loopnet.daemon.domains import live_nics
from libvirt_loopnet.host import linux
from libvirt_loopnet.model import Port
from libvirt_loopnet.plugging import bridge_ports
from libvirt_loopnet.plugging.bridge_ports import Place, unplugged

PLACE = Place("loopnet", "virbr1", "loopnet-1234567")
MAC = "52:54:00:00:00:0{}"

STATUS = """<!--
WARNING: THIS IS AN AUTO-GENERATED FILE.
-->
<domstatus state='running' reason='booted' pid='7'>
  <domain type='qemu' id='1'>
    <name>{name}</name>
    <uuid>11111111-0000-0000-0000-00000000000{number}</uuid>
    <devices>
      <interface type='user'><mac address='52:54:00:00:00:ff'/></interface>
      <interface type='{kind}'>
        <mac address='52:54:00:00:00:0{number}'/>
        <source {kind}='{source}'/>
        <actual type='network'><source bridge='virbr1'/></actual>
        <target dev='vnet{number}'/>
      </interface>
    </devices>
  </domain>
</domstatus>
"""


class Machine:
    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.net, self.run = path / "net", path / "run"
        self.ports: list[Port] = []
        patch.setattr(bridge_ports, "SYSFS_NET", str(self.net))
        patch.setattr(linux, "SYSFS_NET", str(self.net))
        patch.setattr(bridge_ports, "live_nics", lambda taps: live_nics(taps, str(self.run)))
        patch.setattr(runstate, "live_ports", lambda name: [p for p in self.ports if p.network == name])
        for bridge in ("virbr1", "br0", "loopnet-1234567"):
            (self.net / bridge / "brif").mkdir(parents=True)

    def guest(
        self, number: int, *, on: str = "", port: bool = True, kind: str = "network", source: str = "loopnet",
        driver: str = "qemu", carrier: str = "1",
    ) -> None:  # fmt: skip
        tap = self.net / f"vnet{number}"
        tap.mkdir()
        (tap / "address").write_text(f"fe:54:00:00:00:0{number}\n")
        (tap / "carrier").write_text(f"{carrier}\n")
        if driver == "qemu":
            (tap / "tun_flags").write_text("0x5002\n")
        else:
            (tap / "iflink").write_text("2\n")
        if on:
            (tap / "master").symlink_to(f"../{on}")
            (self.net / on / "brif" / tap.name).touch()
        directory = self.run / driver
        directory.mkdir(parents=True, exist_ok=True)
        text = STATUS.format(name=f"vm{number}", number=number, kind=kind, source=source)
        (directory / f"vm{number}.xml").write_text(text)
        if port:
            self.ports.append(Port("loopnet", MAC.format(number), f"vm{number}", ""))

    def out(self) -> list[str]:
        return [nic.guest for _, nic in unplugged([PLACE])]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_all_is_well(machine: Machine) -> None:
    machine.guest(1, on="virbr1")
    machine.guest(2, kind="bridge", source="br0", on="br0", port=False)
    machine.guest(3, source="default", port=False)
    assert machine.out() == []


def test_on_no_bridge(machine: Machine) -> None:
    machine.guest(1, on="virbr1")
    machine.guest(2, port=False)
    machine.guest(3)  # libvirt says that it has a port
    machine.guest(4, on="br0")
    machine.guest(5, port=False, driver="lxc")
    assert machine.out() == ["vm2", "vm3", "vm4", "vm5"]
    place, nic = unplugged([PLACE])[-1]
    assert (place, nic.driver, nic.uuid[-1], nic.interface.tap) == (PLACE, "lxc", "5", "vnet5")


def test_on_the_bridge_by_hand(machine: Machine) -> None:
    machine.guest(1, on="virbr1", port=False)
    assert machine.out() == ["vm1"]


def test_on_the_bridge_itself(machine: Machine) -> None:
    """No port is needed; a port that libvirt has for the network counts for nothing."""
    machine.guest(1, on="virbr1", port=False, kind="bridge", source="virbr1")
    machine.guest(2, port=False, kind="bridge", source="virbr1")
    machine.guest(3, on="br0", port=False, kind="bridge", source="virbr1")
    assert machine.out() == ["vm2", "vm3"]


def test_left_on_the_spare_bridge(machine: Machine) -> None:
    machine.guest(1, on=PLACE.spare, port=False, kind="bridge", source=PLACE.spare)
    machine.guest(2, port=False, kind="bridge", source="loopnet-7654321")  # another network's
    assert machine.out() == ["vm1"]


def test_a_guest_that_has_gone(machine: Machine) -> None:
    """Its tap went first; libvirt hasn't noticed yet."""
    machine.guest(1, port=False)
    for file in (machine.net / "vnet1").iterdir():
        file.unlink()
    (machine.net / "vnet1").rmdir()
    assert machine.out() == []


def test_files_that_say_nothing(machine: Machine) -> None:
    machine.guest(1, port=False)
    status = machine.run / "qemu" / "vm1.xml"
    whole = status.read_text()
    for text in ("", "<target dev='vnet1'/>", whole[: len(whole) // 2] + "<target dev='vnet1'/>"):
        status.write_text(text)
        assert machine.out() == []
    status.unlink()
    assert machine.out() == []
    assert domains.live_nics(["vnet1"], str(machine.run / "absent")) == []


@pytest.mark.parametrize(
    ("carrier", "on", "seen"), [("1", "virbr1", True), ("0", "virbr1", False), ("1", "br0", False)]
)
def test_seen_to_be_plugged_in(machine: Machine, carrier: str, on: str, seen: bool) -> None:
    machine.guest(1, on=on, carrier=carrier)
    assert bridge_ports.is_plugged("vnet1", "virbr1") is seen
    assert bridge_ports.is_dead("vnet1") is (carrier == "0")
    assert not bridge_ports.is_plugged("vnet9", "virbr1")
    assert not bridge_ports.is_dead("vnet9")
