"""What a confined dnsmasq may do: host/confinement.py, and the rules that packages bring."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from libvirt_loopnet.host import confinement

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
DIRECTORY = "/var/lib/libvirt/dnsmasq/*.loopnet/{,*} r,\n"


class Machine:
    """A machine's files that say what is confined, with nothing in them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.profiles = self._at("profiles", "PROFILES", monkeypatch)
        self.profile = self._at("etc/apparmor.d/usr.sbin.dnsmasq", "PROFILE", monkeypatch)
        self.rules = self._at("etc/apparmor.d/local/usr.sbin.dnsmasq", "LOCAL_RULES", monkeypatch)
        self.enforce = self._at("enforce", "ENFORCE", monkeypatch)
        self.program = self._at("apparmor-rules", "ADD_RULES", monkeypatch)
        self.labels: dict[str, bytes] = {}
        monkeypatch.setattr(os, "getxattr", self._label)

    def _at(self, place: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = self.root / place
        monkeypatch.setattr(confinement, name, str(path))
        return path

    def _label(self, path: str, name: str) -> bytes:
        assert name == "security.selinux"
        if path not in self.labels:
            raise OSError("no such attribute")
        return self.labels[path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("profiles", "rules", "reservations", "script"),
    [
        ("", "", True, True),
        ("libvirtd (enforce)\n", "", True, True),
        ("dnsmasq (complain)\ndnsmasq//libvirt_leaseshelper (enforce)\n", "", True, True),
        ("dnsmasq (enforce)\n", "", False, False),
        ("/usr/sbin/dnsmasq (enforce)\n", "", False, False),
        ("dnsmasq (enforce)\n", "/x/lease rix,\n", False, True),
        ("dnsmasq (enforce)\n", DIRECTORY, True, False),
        ("dnsmasq (enforce)\n", "/var/lib/libvirt/dnsmasq/** r,\n/x/lease rix,\n", True, True),
        # the packages' line is for the packages' script
        ("dnsmasq (enforce)\n", f'include if exists "{confinement.OWN_RULES}"\n', True, False),
    ],
)
def test_apparmor(machine: Machine, profiles: str, rules: str, reservations: bool, script: bool) -> None:
    machine.rules.parent.mkdir(parents=True)
    machine.profiles.write_text(profiles)
    machine.rules.write_text(rules)
    assert (not confinement.of_reservations()) is reservations
    assert (not confinement.of_script("/x/lease")) is script


def test_the_profile_itself_may_allow_it(machine: Machine) -> None:
    machine.rules.parent.mkdir(parents=True)
    machine.profiles.write_text("dnsmasq (enforce)\n")
    machine.profile.write_text("profile dnsmasq {\n  /var/lib/libvirt/dnsmasq/** r,\n}\n")
    assert not confinement.of_reservations()


def test_the_remedy_is_one(machine: Machine) -> None:
    """What a message tells to do, done, ends what it tells of; a package's program is named where it is."""
    machine.rules.parent.mkdir(parents=True)
    machine.profiles.write_text("dnsmasq (enforce)\n")
    for why in (confinement.of_reservations, lambda: confinement.of_script("/x/lease")):
        command = str(why()).partition("; fix it: ")[2].partition("; systemctl reload apparmor")[0]
        assert command.startswith("echo ")
        subprocess.run(["sh", "-ec", command], check=True)
        assert not why()
    machine.rules.write_text("")
    machine.program.write_text("")
    machine.program.chmod(0o755)
    for text in (confinement.of_reservations(), confinement.of_script(confinement.PACKAGED)):
        assert str(text).endswith(f"; fix it: {machine.program} add")


def test_packages_rules(machine: Machine) -> None:
    """They come and go by themselves, beside what the host has there."""

    def run(action: str) -> None:
        subprocess.run([PACKAGING / "apparmor-rules", action, machine.root], check=True)

    run("add")
    assert not machine.rules.exists()  # no profile, nothing to do
    machine.rules.parent.mkdir(parents=True)
    machine.profile.write_text("profile dnsmasq {}")
    machine.profiles.write_text("dnsmasq (enforce)")
    for before in (None, "", "/srv/tftp/** r,\n"):
        if before is not None:
            machine.rules.write_text(before)
        run("add")
        run("add")
        assert machine.rules.read_text().startswith(before or "")
        assert machine.rules.read_text().count("apparmor-dnsmasq") == 1
        assert not confinement.of_script(confinement.PACKAGED)
        assert not confinement.of_reservations()
        run("remove")
        run("remove")
        assert machine.rules.read_text() == (before or "")
    allowed = (PACKAGING / "apparmor-dnsmasq").read_text()
    assert f"{confinement.PACKAGED} rix," in allowed
    assert "/var/lib/libvirt/dnsmasq/*.loopnet/ r," in allowed


def test_selinux(machine: Machine) -> None:
    """Whether the module is there is told by the labels that it gives."""
    script = "/x/lease"
    assert not confinement.of_script(script)
    machine.enforce.write_text("1")
    assert "libvirt-loopnet-selinux" in str(confinement.of_script(script))
    for label, allowed in (
        (b"system_u:object_r:bin_t:s0\0", False),
        (b"system_u:object_r:unlabeled_t:s0\0", False),
        (b"nonsense", False),
        (b"", False),
        (b"system_u:object_r:loopnet_lease_exec_t:s0\0", True),
        (b"system_u:object_r:loopnet_lease_exec_t", True),
    ):
        machine.labels[script] = label
        assert (not confinement.of_script(script)) is allowed, label
    machine.labels.clear()
    machine.enforce.write_text("0")
    assert not confinement.of_script(script)
