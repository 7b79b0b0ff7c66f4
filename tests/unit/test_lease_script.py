"""The script that dnsmasq runs for every lease, by a stand-in for libvirt's helper: nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libvirt_loopnet.host import leases
from libvirt_loopnet.model import Network
from libvirt_loopnet.networks.dnsmasq_options import lease_option

SCRIPT = Path(__file__).resolve().parents[2] / "hooks" / "lease"
MAC = "52:54:00:00:00:05"
NETWORK = Network(
    "net", "", "virbr9", "", "mapped", IPv4Network("127.1.0.0/24"), IPv4Network("10.0.8.0/24"), 1, 254, "net"
)


def works(shell: str) -> bool:
    """It is there; busybox has programs of its own, of which Ubuntu 22.04's timeout doesn't know -k yet. There as
    elsewhere the script is run by dash and has coreutils' timeout."""
    known = ["busybox", "timeout", "-k", "1", "1", "true"] if shell == "busybox" else [shell, "-c", "true"]
    return shutil.which(shell) is not None and subprocess.run(known, capture_output=True).returncode == 0


SHELLS = [shell for shell in ("dash", "bash", "busybox") if works(shell)]

HELPER = """#!/bin/sh
echo "$DNSMASQ_INTERFACE: $*" >>calls
[ "$1" != init ] || cat leases
exit 0
"""


class Script:
    """The script, with a directory of its own in the place of dnsmasq's."""

    def __init__(self, root: Path) -> None:
        self.root, self.helper = root, root / "helper"
        text = SCRIPT.read_text().replace("/var/lib/libvirt/dnsmasq", str(root))
        # nobody's syslog, and no helper but ours
        text = text.replace("logger -t", "false").replace("/usr/lib", f"{root}/usr/lib")
        (root / "script").write_text(text)
        self.put(HELPER)
        (root / "leases").write_text("")
        self.plan("loop clean 127.1.0.0 10.0.8.0 255.255.255.0")

    def put(self, helper: str) -> None:
        self.helper.write_text(helper)
        self.helper.chmod(0o755)

    def plan(self, line: str) -> None:
        (self.root / "virbr9.loopnet-leases").write_text(f"{line} {self.helper}\n")

    def __call__(self, *arguments: str, shell: str = "sh", **more: str) -> subprocess.CompletedProcess[str]:
        (self.root / "calls").unlink(missing_ok=True)
        words = [shell, "sh"] if shell == "busybox" else [shell]
        environment = {"PATH": os.environ["PATH"], "VIR_BRIDGE_NAME": "virbr9", **more}
        return subprocess.run(
            [*words, "script", *arguments], cwd=self.root, env=environment, capture_output=True, text=True, timeout=60
        )  # fmt: skip

    @property
    def calls(self) -> list[str]:
        path = self.root / "calls"
        return [line.split(": ", 1)[1] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("action", ["add", "old", "del"])
def test_the_helper_gets_the_loop_address(script: Script, action: str, shell: str) -> None:
    done = script(action, MAC, "10.0.8.5", "vm1", shell=shell)
    assert (done.returncode, done.stderr, script.calls) == (0, "", [f"{action} {MAC} 127.1.0.5 vm1"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", MAC, "10.0.9.5"),
        ("add", MAC, "10.0.8.5.1"),
        ("add", MAC, "10.0.8.08"),
        ("add", MAC, "10.0.8"),
        ("add", MAC, "10.0.8.$(touch x)"),
        ("add", MAC, ""),
        ("add", MAC, "10.0.8.99999999999999999999"),
        ("old", "00:01:00:01", "fd00::5", "vm1"),
        ("tftp", "512", "10.0.8.5", "/boot"),
        ("add", MAC),
        ("",),
        ("add", MAC, "192.0.2.1", "a b; touch x", "*"),
    ],
)
@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_not_ours_goes_through_as_it_is(
    script: Script, arguments: tuple[str, ...], shell: str
) -> None:
    script(*arguments, shell=shell)
    assert [call.strip() for call in script.calls] == [" ".join(arguments).strip()]
    assert not (script.root / "x").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_init_turns_addresses_back(script: Script, shell: str) -> None:
    (script.root / "leases").write_text(
        f"1795800834 {MAC} 127.1.0.5 vm1 01:{MAC}\n"
        "1795800834 52:54:00:00:00:06 10.0.8.6 * *\n"
        "1795800834 52:54:00:00:00:06 127.1.0.6 * *\n"  # mixed
        "duid 00:01:00:01\n"
        "1795800834 1234 fd00::5 vm1 00:01\n"
    )
    done = script("init", shell=shell)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"1795800834 {MAC} 10.0.8.5 vm1 01:{MAC}",
        "1795800834 52:54:00:00:00:06 10.0.8.6 * *",
        "duid 00:01:00:01",
        "1795800834 1234 fd00::5 vm1 00:01",
    ]
    assert done.stderr == ""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "nonsense", ["nonsense", "1 2", "x y z", "1 a b c", "* * *", "1 a 127.5.0.1 * *", "\x01"]
)
def test_nonsense_is_passed_over(script: Script, nonsense: str, shell: str) -> None:
    (script.root / "leases").write_text(f"{nonsense}\n1795800834 {MAC} 127.1.0.5 vm1 *\n")
    done = script("init", shell=shell)
    assert (done.returncode, done.stdout) == (0, f"1795800834 {MAC} 10.0.8.5 vm1 *\n")
    assert done.stderr.count("\n") == 1
    assert "1 leases" in done.stderr


@pytest.mark.parametrize("arguments", [("init",), ("add", MAC, "10.0.8.5")])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_failing_helper(script: Script, arguments: tuple[str, ...], shell: str) -> None:
    script.put("#!/bin/sh\nexit 1\n")
    done = script(*arguments, shell=shell)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "status 1" in done.stderr


@pytest.mark.parametrize("arguments", [("init",), ("add", MAC, "10.0.8.5")])
def test_a_missing_helper(script: Script, arguments: tuple[str, ...]) -> None:
    script.helper.unlink()
    done = script(*arguments)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("init",), ("add", MAC, "10.0.8.5")])
def test_a_hanging_helper(script: Script, arguments: tuple[str, ...]) -> None:
    script.put("#!/bin/sh\nexec sleep 60\n")
    text = (script.root / "script").read_text()
    (script.root / "script").write_text(text.replace("patience=10", "patience=1"))
    began = time.monotonic()
    done = script(*arguments)
    assert time.monotonic() - began < 10
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "plan",
    [
        "", "loop", "loop clean 127.1.0.0", "loop clean 127.1.0.x 10.0.8.0 255.255.255.0",
        "loop clean 127.1.0 10.0.8.0 255.255.255.0", "loop clean 127.01.0.09 10.0.8.0 255.255.255.0",
        "$(touch x) a b c d", "loop clean 127.1.0.0.9 10.0.8.0 255.255.255.0", "\x00\xff",
    ],
)  # fmt: skip
@pytest.mark.parametrize("shell", SHELLS)
def test_a_damaged_plan(script: Script, plan: str, shell: str) -> None:
    script.plan(plan)
    place = script.root / "usr/lib/libvirt/libvirt_leaseshelper"
    place.parent.mkdir(parents=True)
    shutil.copy(script.helper, place)
    done = script("add", MAC, "10.0.8.5", "vm1", shell=shell)
    assert (done.returncode, script.calls) == (0, [f"add {MAC} 10.0.8.5 vm1"])
    assert "missing or damaged" in done.stderr
    assert not (script.root / "x").exists()


def test_the_lists_other_kind_goes(script: Script) -> None:
    script.plan("loop mixed 127.1.0.0 10.0.8.0 255.255.255.0")
    script("old", MAC, "10.0.8.5", "vm1")
    assert script.calls == [f"del {MAC} 10.0.8.5", f"old {MAC} 127.1.0.5 vm1"]
    script.plan("guest mixed 127.1.0.0 10.0.8.0 255.255.255.0")
    script("old", MAC, "10.0.8.5", "vm1")
    assert script.calls == [f"del {MAC} 127.1.0.5", f"old {MAC} 10.0.8.5 vm1"]


def test_the_bridges_list_is_written(script: Script) -> None:
    """Where the LAN has the guests' prefix, dnsmasq names the LAN's interface at its start."""
    script("old", MAC, "10.0.8.5", "vm1", DNSMASQ_INTERFACE="eth0")
    assert (script.root / "calls").read_text().startswith("virbr9: ")


def test_a_thousand_leases(script: Script) -> None:
    script.plan("loop clean 127.1.0.0 10.0.0.0 255.255.0.0")
    lines = [
        f"1795800834 52:54:00:00:{i >> 8:02x}:{i & 255:02x} 127.1.{i >> 8}.{i & 255} vm{i} *"
        for i in range(1000)
    ]
    (script.root / "leases").write_text("\n".join(lines) + "\n")
    began = time.monotonic()
    done = script("init")
    assert time.monotonic() - began < 2
    assert done.stdout.splitlines() == [line.replace(" 127.1.", " 10.0.") for line in lines]


@given(length=st.integers(16, 29), place=st.integers(0, 2**32 - 1), number=st.integers(0, 2**13))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_there_and_back(script: Script, length: int, place: int, number: int) -> None:
    mask = (2**32 - 1) ^ (2 ** (32 - length) - 1)
    loop = IPv4Network((0x7F000000 | (place & 0xFFFFFF & mask), length))
    guest = IPv4Network(((place * 31) & mask, length))
    number %= loop.num_addresses
    script.plan(f"loop clean {loop.network_address} {guest.network_address} {loop.netmask}")
    script("add", MAC, str(guest[number]))
    assert script.calls == [f"add {MAC} {loop[number]}"]
    (script.root / "leases").write_text(f"1 {MAC} {loop[number]} * *\n")
    assert script("init").stdout == f"1 {MAC} {guest[number]} * *\n"


# --- the files it reads


def files(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in root.iterdir()}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def place(path: str) -> None:
        monkeypatch.setattr(leases, "_SCRIPTS", (path,))

    monkeypatch.setattr(leases, "HELPERS", ("/bin/true",))
    place(str(SCRIPT))
    return place


OPTIONS = (lease_option("net"),)


@pytest.mark.usefixtures("installed")
def test_both_files_come_and_go(tmp_path: Path) -> None:
    assert leases.prepare(NETWORK, "loop", OPTIONS, str(tmp_path)) is None
    assert files(tmp_path) == {
        "net.loopnet-dnsmasq": f"dhcp-script={SCRIPT}\n",
        "virbr9.loopnet-leases": "loop clean 127.1.0.0 10.0.8.0 255.255.255.0 /bin/true\n",
    }
    leases.remove("net", "virbr9", str(tmp_path))
    leases.remove("net", "virbr9", str(tmp_path))
    assert files(tmp_path) == {}


@pytest.mark.usefixtures("installed")
def test_what_other_networks_left(tmp_path: Path) -> None:
    other = NETWORK._replace(name="other", bridge="virbr8")
    for network in (NETWORK, other):
        leases.prepare(network, "loop", (lease_option(network.name),), str(tmp_path))
    (tmp_path / "virbr8.status").write_text("libvirt's")
    gone = leases.remove_others([NETWORK], str(tmp_path))
    assert gone == [f"{tmp_path}/other.loopnet-dnsmasq", f"{tmp_path}/virbr8.loopnet-leases"]
    assert sorted(files(tmp_path)) == ["net.loopnet-dnsmasq", "virbr8.status", "virbr9.loopnet-leases"]
    assert leases.remove_others([], str(tmp_path / "nowhere")) == []


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("options", "says"),
    [((), "lacks the dnsmasq option"), ((*OPTIONS, "dhcp-script=/bin/own"), "of its own")],
)
def test_definitions_without(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    assert says in str(leases.prepare(NETWORK, "loop", options, str(tmp_path)))
    assert files(tmp_path)["net.loopnet-dnsmasq"] == ""


def test_a_script_that_dnsmasq_could_not_run(installed: Callable[[str], None], tmp_path: Path) -> None:
    """dnsmasq would not start: it ends when it can't run its script."""
    for name, mode, says in (("plain", 0o644, "can't be executed"), ("a b", 0o755, "characters")):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
        installed(str(tmp_path / name))
        if os.access(tmp_path / name, os.X_OK) and mode == 0o644:
            continue
        assert says in str(leases.prepare(NETWORK, "loop", OPTIONS, str(tmp_path)))
        assert files(tmp_path)["net.loopnet-dnsmasq"] == ""
    installed("/nowhere/lease")
    assert "reinstall libvirt-loopnet" in str(leases.prepare(NETWORK, "loop", OPTIONS, str(tmp_path)))


def test_without_libvirts_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HELPERS", ("/nowhere/helper",))
    assert "/nowhere/helper" in str(leases.prepare(NETWORK, "loop", OPTIONS, str(tmp_path)))
    assert files(tmp_path) == {"net.loopnet-dnsmasq": ""}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("status", "state"),
    [
        ('[ { "ip-address": "10.0.8.5" } ]', "mixed"), ('[ { "ip-address": "127.1.0.5" } ]', "clean"),
        ("", "clean"), ("{", "clean"), ('"ip-address"', "clean"), ('"ip-address": "\xff"', "clean"),
    ],
)  # fmt: skip
def test_a_list_is_mixed_or_not(tmp_path: Path, status: str, state: str) -> None:
    (tmp_path / "virbr9.status").write_text(status)
    leases.prepare(NETWORK, "loop", OPTIONS, str(tmp_path))
    assert files(tmp_path)["virbr9.loopnet-leases"].split()[1] == state


@pytest.mark.usefixtures("installed")
def test_only_what_differs_is_told(tmp_path: Path) -> None:
    root = str(tmp_path)
    leases.prepare(NETWORK, "loop", OPTIONS, root)
    assert not leases.sync(NETWORK, "loop", root)
    assert leases.stale(NETWORK, "guest", root) == [f"{root}/virbr9.loopnet-leases"]
    (tmp_path / "virbr9.status").write_text('"ip-address": "127.1.0.5"')
    assert leases.sync(NETWORK, "guest", root)
    assert not leases.stale(NETWORK, "guest", root)
    assert not leases.sync(NETWORK, "guest", root)
    (tmp_path / "virbr9.status").write_text("")
    assert not leases.sync(NETWORK, "guest", root)


def test_native_needs_none(tmp_path: Path) -> None:
    native = NETWORK._replace(mode="native", guest_prefix=NETWORK.loop_prefix)
    assert leases.prepare(native, "loop", (), str(tmp_path)) is None
    assert files(tmp_path) == {"net.loopnet-dnsmasq": ""}
    leases.prepare(native, "loop", (), str(tmp_path), more=["enable-tftp", "tftp-root=/srv"])
    assert files(tmp_path) == {"net.loopnet-dnsmasq": "enable-tftp\ntftp-root=/srv\n"}
