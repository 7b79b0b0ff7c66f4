"""The .deb on real Debian: installed, used, upgraded, removed, purged."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from conftest import TOP

from tests.machines.machine import Machine

INSTALL = "apt-get -qq -y -o Dpkg::Use-Pty=0 install /root/loopnet.deb"
REMOVE = "apt-get -qq -y -o Dpkg::Use-Pty=0 remove libvirt-loopnet"
PURGE = "apt-get -qq -y -o Dpkg::Use-Pty=0 purge libvirt-loopnet"
NO_SERVICES = "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d"
OURS = "find / -xdev -name '*loopnet*' -not -path '/proc/*' -not -path '/root/*' | sort"

PORT = "5e3a1b52-46a6-4b6c-8cde-6e3a7c4c8a02"
GUEST = f"""\
<networkport>
  <uuid>{PORT}</uuid>
  <owner><name>vm1</name><uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid></owner>
  <mac address='52:54:00:12:34:56'/>
</networkport>
"""
"""What libvirt makes when it starts a guest; to libvirt, to hooks and to the package it is one."""

STALE_HOSTS = """\
# libvirt-loopnet: begin (do not edit; names of running guests)
127.1.0.7 crashed.loopnet # libvirt-loopnet: guest
# libvirt-loopnet: end
"""


def plug_in_guest(machine: Machine) -> None:
    machine.run("cat >/run/port.xml; virsh net-port-create loopnet /run/port.xml", input=GUEST)


def assert_works(machine: Machine) -> None:
    """The network is up, by the hooks and the command that the package installed."""
    status = json.loads(machine.run("loopnet status --json", stderr=False))
    assert status["ok"], status
    assert [network["name"] for network in status["networks"] if network["active"]] == ["loopnet"]
    assert "127.0.0.1/16" in machine.run("ip -br address show dev lo")


def assert_clean(machine: Machine) -> None:
    """Nothing of a running network is left on the host."""
    assert "loopnet" not in machine.run("nft list tables")
    assert "127.0.0.1/8" in machine.run("ip -br address show dev lo")
    assert "127.1." not in machine.run("ip address; ip route show table all")
    assert "loopnet" not in machine.run("cat /etc/hosts; ls /sys/class/net")
    assert machine.run("systemctl --failed --quiet --no-legend") == ""


def test_lintian(deb: Path) -> None:
    changes = next(deb.parent.glob("*.changes"))
    argv = ["lintian", "--allow-root", "--fail-on=error,warning", "--tag-display-limit=0", str(changes)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")


def test_contents(deb: Path) -> None:
    listing = subprocess.check_output(["dpkg-deb", "--contents", str(deb)], text=True)
    modes = {line.split()[5]: line.split()[0] for line in listing.splitlines()}
    for driver in ("network", "qemu"):
        assert modes[f"./etc/libvirt/hooks/{driver}.d/50-loopnet"] == "-rwxr-xr-x"
    assert not [path for path in modes if "__pycache__" in path or path.startswith(("./lib/", "./bin/"))]
    conffiles = subprocess.check_output(["dpkg-deb", "--info", str(deb), "conffiles"], text=True)
    assert conffiles.split() == [
        "/etc/libvirt-loopnet.conf",
        "/etc/libvirt/hooks/network.d/50-loopnet",
        "/etc/libvirt/hooks/qemu.d/50-loopnet",
    ]


def test_package_for_guests(deb: Path, tmp_path: Path) -> None:
    """A script, its service and a sysctl; nothing that a small guest doesn't have."""
    package = str(next(deb.parent.glob("loopnet-guest_*.deb")))
    listing = subprocess.check_output(["dpkg-deb", "--contents", package], text=True)
    files = {line.split()[5]: line.split()[0] for line in listing.splitlines() if line.startswith("-")}
    assert {path: mode for path, mode in files.items() if "/doc/" not in path} == {
        "./usr/lib/loopnet-guest/prepare": "-rwxr-xr-x",
        "./usr/lib/systemd/system/loopnet-guest.service": "-rw-r--r--",
        "./usr/lib/sysctl.d/50-loopnet-guest.conf": "-rw-r--r--",
    }
    depends = subprocess.check_output(["dpkg-deb", "--field", package, "Depends"], text=True)
    assert {each.split()[0] for each in depends.split(",")} == {"iproute2", "procps"}
    subprocess.run(["dpkg-deb", "--extract", package, str(tmp_path)], check=True)
    unit = (tmp_path / "usr/lib/systemd/system/loopnet-guest.service").read_text()
    assert "ExecStart=/bin/sh /usr/lib/loopnet-guest/prepare\n" in unit


def test_life_on_a_running_machine(suite: Path, deb: Path, newer_deb: Path) -> None:
    with Machine(suite) as machine:
        machine.copy(deb, "/root/loopnet.deb")
        before = machine.run(OURS)
        hosts = machine.run("cat /etc/hosts")
        # The daemon runs, and must know both hooks and network at once.
        machine.run("virsh net-list")
        assert "Defined network loopnet" in machine.run(INSTALL)
        machine.run("virsh net-start loopnet")
        assert_works(machine)
        assert machine.run("systemctl is-active loopnet-watch") == "active\n"
        assert machine.run(
            "head -n1 /usr/bin/loopnet; grep -c pkg_resources /usr/bin/loopnet || true"
        ).endswith("\n0\n")

        plug_in_guest(machine)
        assert "vm1.loopnet" in machine.run("getent hosts vm1.loopnet")
        address = machine.run("loopnet ip vm1")
        assert address == "127.1.0.2\n"

        watch_mends_what_others_undo(machine)
        upgrade_changes_nothing_for_guests(machine, newer_deb)

        removed_under_a_guest(machine)
        machine.run(INSTALL)
        machine.run("virsh net-start loopnet")
        plug_in_guest(machine)
        assert machine.run("loopnet ip vm1") == address

        machine.run(f"virsh net-port-delete loopnet {PORT}")
        plain = machine.run("virsh net-dumpxml --inactive default")
        machine.run("loopnet convert default; virsh net-start default")
        assert "loopnet:network" in machine.run("virsh net-dumpxml --inactive default")
        assert "Stopping network loopnet" in machine.run(REMOVE)
        assert machine.run("virsh net-dumpxml --inactive default") == plain
        assert_clean(machine)
        assert machine.run("pgrep -a loopnet || true") == ""
        assert machine.run("cat /etc/hosts") == hosts
        orphaned_hooks_do_nothing(machine)

        # Who installs it again has what was there, addresses too.
        assert "Defined" not in machine.run(INSTALL)
        machine.run("virsh net-start loopnet")
        plug_in_guest(machine)
        assert machine.run("loopnet ip vm1") == address
        machine.run(f"virsh net-port-delete loopnet {PORT}; virsh net-autostart loopnet")

        machine.run(PURGE)
        assert_clean(machine)
        assert machine.run("virsh net-list --all --name").split() == ["default"]
        machine.run("systemctl restart libvirtd")
        assert machine.run("virsh net-list --all --name").split() == ["default"]
        assert machine.run(OURS) == before


def removed_under_a_guest(machine: Machine) -> None:
    """The guest's network goes on until it is stopped, and takes all along then."""
    before = machine.run("nft list ruleset")
    said = machine.run(REMOVE)
    assert "still up: loopnet; their guests go on" in said
    assert "needs loopnet no more: virsh net-destroy loopnet" in said
    assert machine.run("command -v loopnet || echo gone") == "gone\n"
    assert machine.run("nft list ruleset") == before
    assert "127.0.0.1/16" in machine.run("ip -br address show dev lo")
    assert "vm1.loopnet" in machine.run("getent hosts vm1.loopnet")
    # guests come and go
    machine.run(f"virsh net-port-delete loopnet {PORT}")
    assert "vm1.loopnet" not in machine.run("cat /etc/hosts")
    plug_in_guest(machine)
    assert "vm1.loopnet" in machine.run("getent hosts vm1.loopnet")
    # also over a daemon's restart
    machine.run("systemctl restart libvirtd; virsh net-destroy loopnet")
    assert_clean(machine)
    assert (
        machine.run("ls -d /run/libvirt-loopnet-removed /etc/libvirt/hooks/*/*-removed 2>&1 || true").count(
            "No such"
        )
        == 2
    )
    assert "libvirt-loopnet was removed" in machine.run("virsh net-start loopnet", status=1)
    assert_clean(machine)


def watch_mends_what_others_undo(machine: Machine) -> None:
    """Also where that takes iptables-legacy and ip6tables-legacy, as the service, which may do less than root."""
    machine.run("iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP")
    machine.run("nft flush ruleset; ip address add 127.0.0.1/8 dev lo; ip route flush table local proto 127")
    machine.run("for _ in $(seq 50); do loopnet status >/dev/null && exit; sleep 0.1; done; loopnet status")
    said = machine.run("journalctl -q --no-pager -t libvirt-loopnet")
    assert "repaired: nft: tables loopnet (bridge, arp, ip) replaced" in said
    assert "repaired: ip address del 127.0.0.1/8 dev lo" in said
    assert "LOOPNET_FORWARD" in machine.run("iptables-legacy -S FORWARD")
    assert "LOOPNET_FORWARD" in machine.run("ip6tables-legacy -S FORWARD")
    machine.run("iptables-legacy -P FORWARD ACCEPT; ip6tables-legacy -P FORWARD ACCEPT; loopnet sync")


def upgrade_changes_nothing_for_guests(machine: Machine, newer: Path) -> None:
    def guests() -> str:
        return machine.run(
            "loopnet list; cat /var/lib/libvirt-loopnet/*.reservations /etc/hosts; virsh net-list"
        )

    machine.copy(newer, "/root/loopnet.deb")
    # As if somebody had changed a hook: dpkg leaves the new one beside it, executable.
    machine.run("echo '# mine' >>/etc/libvirt/hooks/network.d/50-loopnet")
    before, pid = guests(), machine.run("systemctl show --value -p MainPID loopnet-watch")
    said = machine.run(INSTALL.replace("-y", "-y -o Dpkg::Options::=--force-confold"))
    assert "efined network" not in said
    assert guests() == before
    assert_works(machine)
    assert machine.run("systemctl show --value -p MainPID loopnet-watch") != pid
    leftover = "/etc/libvirt/hooks/network.d/50-loopnet.dpkg-dist"
    machine.run(f"[ -x {leftover} ]; {leftover} x started begin - </dev/null")


def orphaned_hooks_do_nothing(machine: Machine) -> None:
    machine.run(
        "for hook in /etc/libvirt/hooks/*/50-loopnet; do [ -x $hook ]; $hook loopnet start begin - </dev/null; done"
    )


def test_chroot_then_boot(suite: Path, deb: Path, tmp_path: Path) -> None:
    """As an image is made: installed without any daemon, then booted."""
    with Machine(suite, chroot=True, disk=tmp_path) as image:
        image.run(NO_SERVICES)
        image.copy(deb, "/root/loopnet.deb")
        assert "Defined network loopnet" in image.run(INSTALL)
        assert "loopnet" not in image.run("nft list tables")
        image.run("cat >>/etc/hosts; rm /usr/sbin/policy-rc.d", input=STALE_HOSTS)
    with Machine(suite, disk=tmp_path) as machine:
        assert_clean(machine)  # libvirt-loopnet-boot.service has run
        assert machine.run("virsh net-list --all --name").split() == ["default", "loopnet"]
        machine.run("virsh net-start loopnet; virsh net-autostart loopnet")
        assert_works(machine)
        xml = machine.run("virsh net-dumpxml loopnet")
        assert "<bridge name='virbr1'" in xml
        units = "libvirt-loopnet-boot.service loopnet-watch.service"
        assert machine.run(f"systemctl is-enabled {units}").split() == ["enabled"] * 2
        assert machine.run(f"systemd-analyze verify --man=no {units} || true") == ""
        plug_in_guest(machine)
    with Machine(suite, disk=tmp_path) as machine:  # the power failed
        machine.run("virsh net-list")
        assert_works(machine)
        assert "vm1" not in machine.run("cat /etc/hosts")
        assert "127.1.0.2" in machine.run("loopnet ip vm1")


def test_what_is_there_stays(bookworm: Path, deb: Path) -> None:
    networks = "/etc/libvirt/qemu/networks"
    xml = "<network><name>{}</name><bridge name='virbr1'/><ip address='{}' netmask='255.255.0.0'/></network>"

    def installed(name: str, address: str) -> str:
        image.path(f"{networks}/{name}.xml").write_text(xml.format(name, address))
        return image.run(INSTALL)

    with Machine(bookworm, chroot=True) as image:
        image.run(NO_SERVICES)
        image.copy(deb, "/root/loopnet.deb")

        said = installed("dev", "127.1.255.254")
        assert "is not defined, since network dev has 127.1.0.0/16." in said
        assert not image.path(f"{networks}/loopnet.xml").exists()
        image.run(f"{PURGE}; rm {networks}/dev.xml")

        assert "There is a network loopnet already" in installed("loopnet", "192.168.77.1")
        before = image.run(f"cat {networks}/loopnet.xml")
        image.run(PURGE)
        assert image.run(f"cat {networks}/loopnet.xml") == before
        image.run(f"rm {networks}/loopnet.xml")

        assert "bridge virbr2" in installed("other", "192.168.78.1")
        image.run(f"echo >>{networks}/loopnet.xml")
        assert "Kept, since it was changed: network loopnet." in image.run(PURGE)
        assert image.path(f"{networks}/loopnet.xml").exists()
        image.run(f"rm {networks}/*.xml")

        # and what came from source gives way
        hook = image.path("/etc/libvirt/hooks/qemu.d/50-loopnet")
        hook.parent.mkdir(parents=True)
        source = (TOP / "hooks/qemu").read_text()
        hook.write_text(source.replace("package=@PACKAGE@", "package=/usr/local/lib/libvirt-loopnet"))
        assert "Defined network loopnet" in image.run(INSTALL)
        assert "\npackage=/usr/lib/python3/dist-packages\n" in hook.read_text()
        image.run(PURGE)
        assert image.run(f"{OURS}; ls {networks}") == "autostart\n"


def test_purged_under_a_guest(bookworm: Path, deb: Path) -> None:
    """What the guest has reserved is kept as long as its network is up; after a reboot nothing is there."""
    with Machine(bookworm) as machine:
        before = machine.run(OURS)
        machine.copy(deb, "/root/loopnet.deb")
        machine.run(INSTALL)
        machine.run("virsh net-start loopnet")
        plug_in_guest(machine)
        assert "still up: loopnet" in machine.run(PURGE)
        assert "loopnet" not in machine.run(
            "virsh net-list --all --persistent --name; ls /etc/libvirt/qemu/networks"
        )
        assert "vm1" in machine.run("cat /var/lib/libvirt-loopnet/loopnet.reservations")
        assert "vm1.loopnet" in machine.run("getent hosts vm1.loopnet")
        machine.run("virsh net-destroy loopnet")
        assert_clean(machine)
        assert machine.run(OURS) == before

        machine.run(INSTALL)
        machine.run("virsh net-start loopnet")
        plug_in_guest(machine)
        machine.run(PURGE)
        assert "/var/lib/libvirt-loopnet/loopnet.reservations" in machine.run(OURS)
        # a reboot, as far as it is of interest: /run is empty then
        machine.run("rm -r /run/libvirt-loopnet-removed")
        machine.run("for hook in /etc/libvirt/hooks/*/*-removed; do $hook x start begin - </dev/null; done")
        assert "loopnet" not in machine.run("cat /etc/hosts")
        machine.run("virsh net-destroy loopnet")  # libvirt's own files go
        assert machine.run(OURS) == before
