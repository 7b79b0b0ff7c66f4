"""The .rpm: installed, verified, used, upgraded and erased on a machine with libvirt, systemd and rpm.

The machine is Debian's, so dependencies by Fedora's names are ignored, and Python is told of the
directory where Fedora has its modules. What is Fedora's alone, SELinux for one, is not tested here.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import PYTHON_OF_BOOKWORM, TOP
from inside import assert_told, boot, pinged, prepare, snapshot
from test_deb import assert_works

from tests.machines.machine import Machine
from tests.sandbox.snapshot import Snapshot, differences

RPM = "rpm --nodeps --nosignature --dbpath /var/lib/rpm"
MODULES = f"/usr/lib/python{PYTHON_OF_BOOKWORM}/site-packages"


@pytest.fixture(scope="session")
def newer(rpms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a higher release, rebuilt from the .src.rpm as Fedora would."""
    top = tmp_path_factory.mktemp("newer")
    showrc = subprocess.check_output(["rpm", "--showrc"], text=True)
    macros = next(line[12:] for line in showrc.splitlines() if line.startswith("Macro path: "))
    argv = ["rpmbuild", "--rebuild", "--nodeps", f"--macros={macros}:{TOP}/packaging/rpm/macros.loopnet"]
    argv += ["--define", f"_topdir {top}", "--define", f"loopnet_python {PYTHON_OF_BOOKWORM}"]
    argv += ["--define", "dist .newer", str(next(rpms.glob("*.src.rpm")))]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(top)}
    done = subprocess.run(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return next(top.glob("RPMS/noarch/libvirt-loopnet-0*.rpm"))


def test_rpmlint(rpms: Path) -> None:
    argv = [
        "rpmlint",
        "--strict",
        "--config",
        str(TOP / "packaging/rpm/rpmlint.toml"),
        *map(str, rpms.glob("*.rpm")),
    ]
    argv.append(str(TOP / "packaging/rpm/libvirt-loopnet.spec"))
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "0 errors, 0 warnings" in done.stdout


def test_contents(rpms: Path) -> None:
    package = next(rpms.glob("libvirt-loopnet-0*.noarch.rpm"))

    def query(*arguments: str) -> list[str]:
        return subprocess.check_output(["rpm", "-qp", *arguments, str(package)], text=True).splitlines()

    assert query("--configfiles") == ["/etc/libvirt-loopnet.conf"]
    listed = query("--queryformat", "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}\n]")
    assert all(line.endswith(" root") for line in listed)
    for driver in ("network", "qemu"):
        assert f"/etc/libvirt/hooks/{driver}.d/50-loopnet -rwxr-xr-x root" in listed


def test_life_on_a_running_machine(bookworm: Path, rpms: Path, newer: Path) -> None:
    """Installed, upgraded and erased under a guest that is pinged, installed again and erased without one."""
    with Machine(bookworm) as machine:
        prepare(machine)
        machine.run(f"echo {MODULES} >/usr/lib/python3/dist-packages/fedora.pth; mkdir -p /var/lib/rpm")
        machine.copy(next(rpms.glob("libvirt-loopnet-0*.noarch.rpm")), "/root/old.rpm")
        machine.copy(newer, "/root/new.rpm")
        before = snapshot(machine)
        # The daemon ends when it has nothing to do; its sockets stay.
        machine.run("systemctl stop libvirtd.service; ! pgrep libvirtd")

        assert "Defined network loopnet" in machine.run(f"{RPM} -i /root/old.rpm")
        assert machine.run(f"{RPM} -V libvirt-loopnet") == ""
        machine.run("virsh net-start loopnet")
        assert_works(machine)
        assert machine.run("systemctl is-active loopnet-watch") == "active\n"
        guest = boot(machine)
        address = machine.run("loopnet ip vm1")
        with pinged(machine, address.strip()):
            upgraded(machine)
            assert machine.run("loopnet ip vm1") == address
            machine.run(
                "loopnet sync; systemctl stop loopnet-watch"
            )  # as Fedora's systemd-update-helper does
            assert_told(machine.run(f"{RPM} -e libvirt-loopnet"))
            machine.run("systemctl restart libvirtd; virsh list")
        guest.destroy()
        machine.run("virsh net-destroy loopnet")
        assert_as(before, machine)

        # Who installs it again has what was there, addresses too.
        machine.run(f"{RPM} -i /root/new.rpm; virsh net-start loopnet")
        guest = boot(machine)
        assert machine.run("loopnet ip vm1") == address
        guest.destroy()
        machine.run("systemctl stop loopnet-watch")
        assert "Stopping network loopnet" in machine.run(f"{RPM} -e libvirt-loopnet")
        assert_as(before, machine)


def upgraded(machine: Machine) -> None:
    machine.run(
        "echo 'names = off' >/etc/libvirt-loopnet.conf; echo '# mine' >>/etc/libvirt/hooks/qemu.d/50-loopnet"
    )
    assert "efined network" not in machine.run(f"{RPM} -U /root/new.rpm")
    assert machine.run("ls /etc/libvirt/hooks/*").split() == [
        "/etc/libvirt/hooks/network.d:", "50-loopnet", "/etc/libvirt/hooks/qemu.d:", "50-loopnet"
    ]  # fmt: skip
    assert "mine" not in machine.run("cat /etc/libvirt/hooks/qemu.d/50-loopnet")
    assert machine.run(f"{RPM} -V libvirt-loopnet || true") == "S.5....T.  c /etc/libvirt-loopnet.conf\n"


def assert_as(before: Snapshot, machine: Machine) -> None:
    """All is as before, but for the configuration that was changed and the guests' addresses, those of IPv6 too."""
    after = snapshot(machine)
    files = {line.split()[3] for line in set(after["files"].splitlines()) - set(before["files"].splitlines())}
    state = "/var/lib/libvirt-loopnet"
    names = {"loopnet.reservations", "ipv6-global-id", "lock", "hosts.lock"}
    assert files <= {"/etc/libvirt-loopnet.conf.rpmsave", *(f"{state}/{name}" for name in names)}
    assert differences({**before, "files": after["files"]}, after) == ""
