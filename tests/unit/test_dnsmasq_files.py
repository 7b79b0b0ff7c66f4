"""What dnsmasq reads: the files are the reservations, and a live dnsmasq knows them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libvirt_loopnet.errors import HostError, StateError
from libvirt_loopnet.host.dnsmasq import add_host, hosts_directory, reload, remove, sync_hosts
from libvirt_loopnet.model import Network, Reservation
from libvirt_loopnet.networks import dnsmasq_options

NETWORK = Network(
    "loopnet", "", "", "", "mapped", IPv4Network("127.1.0.0/24"), IPv4Network("10.127.1.0/24"),
    1, 254, "loopnet",
)  # fmt: skip
A = Reservation(5, "52:54:00:00:00:05", "", "vm1")
B = Reservation(6, "52:54:00:00:00:06", "", "")


def contents(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (root / "loopnet.loopnet").iterdir()}


def test_the_directory_is_the_one_in_the_xml() -> None:
    assert hosts_directory("a.b") == "/var/lib/libvirt/dnsmasq/a.b.loopnet"
    assert hosts_directory("a.b") == dnsmasq_options.hosts_directory("a.b")


def test_one_file_each(tmp_path: Path) -> None:
    assert not sync_hosts(NETWORK, [A, B], str(tmp_path))
    assert contents(tmp_path) == {
        "52-54-00-00-00-05": "52:54:00:00:00:05,10.127.1.5,vm1\n",
        "52-54-00-00-00-06": "52:54:00:00:00:06,10.127.1.6\n",
    }


def test_only_changes_and_removals_ask_for_a_reload(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert not sync_hosts(NETWORK, [], root)
    assert not add_host(NETWORK, A, root)
    assert not add_host(NETWORK, A, root)
    assert not sync_hosts(NETWORK, [A, B], root)
    assert not sync_hosts(NETWORK, [A, B], root)
    assert add_host(NETWORK, A._replace(name="new"), root)
    assert sync_hosts(NETWORK, [A, B], root)
    assert sync_hosts(NETWORK, [A], root)
    assert list(contents(tmp_path)) == ["52-54-00-00-00-05"]


def test_nothing_is_written_when_nothing_changes(tmp_path: Path) -> None:
    sync_hosts(NETWORK, [A], str(tmp_path))
    path = tmp_path / "loopnet.loopnet" / "52-54-00-00-00-05"
    before = os.stat(path).st_ino, os.stat(path.parent).st_mtime_ns
    sync_hosts(NETWORK, [A], str(tmp_path))
    assert (os.stat(path).st_ino, os.stat(path.parent).st_mtime_ns) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.dictionaries(st.integers(2, 9), st.sampled_from(["", "a", "b"])), max_size=4))
def test_the_files_are_the_reservations(tmp_path: Path, steps: list[dict[int, str]]) -> None:
    for step in steps:
        held = [Reservation(n, f"52:54:00:00:00:{n:02x}", "", name) for n, name in step.items()]
        sync_hosts(NETWORK, held, str(tmp_path))
        assert not sync_hosts(NETWORK, held, str(tmp_path))
        assert sorted(text.split(",")[1].strip() for text in contents(tmp_path).values()) == [
            f"10.127.1.{number}" for number in sorted(step)
        ]


def test_a_stale_temporary_file_goes_without_a_reload(tmp_path: Path) -> None:
    sync_hosts(NETWORK, [A], str(tmp_path))
    (tmp_path / "loopnet.loopnet" / ".52-54-00-00-00-09").write_text("52:5")
    assert not sync_hosts(NETWORK, [A], str(tmp_path))
    assert list(contents(tmp_path)) == ["52-54-00-00-00-05"]


def test_dnsmasq_without_root_can_read_it_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        sync_hosts(NETWORK, [A], str(tmp_path))
    finally:
        os.umask(old)
    directory = tmp_path / "loopnet.loopnet"
    assert directory.stat().st_mode & 0o777 == 0o755
    assert (directory / "52-54-00-00-00-05").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", ["ignore", "infinite", "10", "7d", "5m", "90s", "1h", "2w"])
def test_names_that_dnsmasq_takes_for_something_else(tmp_path: Path, name: str) -> None:
    add_host(NETWORK, A._replace(name=name), str(tmp_path))
    assert list(contents(tmp_path).values()) == [f"{A.mac},10.127.1.5,{name}.loopnet\n"]
    add_host(NETWORK._replace(domain=""), A._replace(name=name), str(tmp_path))
    assert list(contents(tmp_path).values()) == [f"{A.mac},10.127.1.5\n"]


@pytest.mark.parametrize("name", ["d", "vm10", "10x", "a7d"])
def test_names_that_dnsmasq_takes_as_such(tmp_path: Path, name: str) -> None:
    add_host(NETWORK, A._replace(name=name), str(tmp_path))
    assert list(contents(tmp_path).values()) == [f"{A.mac},10.127.1.5,{name}\n"]


def test_remove(tmp_path: Path) -> None:
    sync_hosts(NETWORK, [A, B], str(tmp_path))
    remove("loopnet", str(tmp_path))
    remove("loopnet", str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "loopnet.loopnet").write_text("")
    for attempt in (
        lambda: sync_hosts(NETWORK, [A], str(tmp_path)),
        lambda: add_host(NETWORK, A, str(tmp_path)),
        lambda: remove("loopnet", str(tmp_path)),
    ):
        with pytest.raises(StateError) as caught:
            attempt()
        assert str(tmp_path / "loopnet.loopnet") in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.fixture(params=["dnsmasq", "other"])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    sleep = shutil.which("sleep")
    assert sleep is not None
    program = tmp_path / request.param
    shutil.copy(sleep, program)

    with subprocess.Popen([program, "60"]) as running:
        (tmp_path / "loopnet.pid").write_text(f"{running.pid}\n")
        yield running
        running.kill()


def test_only_dnsmasq_is_signalled(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    is_dnsmasq = str(process.args[0]).endswith("dnsmasq")  # type: ignore[index]
    assert reload("loopnet", str(tmp_path)) is is_dnsmasq
    if is_dnsmasq:
        assert process.wait(timeout=5) == -signal.SIGHUP
        assert not reload("loopnet", str(tmp_path))
    else:
        assert process.poll() is None


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1 2", str(2**22 + 1), "9" * 19])
def test_pid_files_that_name_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "loopnet.pid").write_text(text)
    assert not reload("loopnet", str(tmp_path))
    assert not reload("none", str(tmp_path))


def test_a_refused_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "loopnet.pid").write_text(str(os.getpid()))
    monkeypatch.setattr(os, "readlink", lambda path: "/usr/sbin/dnsmasq (deleted)")
    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(HostError, match="can't be signalled: operation not permitted"):
        reload("loopnet", str(tmp_path))


def can_unshare() -> bool:
    have = shutil.which("dnsmasq") and os.geteuid() == 0
    return bool(have) and subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0


class Live:
    """A dnsmasq in a network namespace of its own, and what it says."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "log"
        command = ["unshare", "-n", shutil.which("dnsmasq") or "", "--keep-in-foreground"]
        command += [
            "--conf-file=/dev/null",
            "--port=0",
            f"--log-facility={self.log}",
            "--user=root",
        ]
        command += ["--dhcp-range=10.127.1.0,static", f"--pid-file={directory}/loopnet.pid"]
        command += [f"--dhcp-hostsdir={directory}/loopnet.loopnet"]
        command += [f"--dhcp-leasefile={directory}/leases"]
        self.process = subprocess.Popen(command)

    def wait_for(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + 5
        while not self.log.exists() or self.log.read_text().count(text) < times:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    sync_hosts(NETWORK, [A], str(tmp_path))
    running = Live(tmp_path)
    yield running
    running.process.kill()
    running.process.wait()


@pytest.mark.skipif(not can_unshare(), reason="needs root, unshare and dnsmasq")
def test_a_live_dnsmasq(tmp_path: Path, live: Live) -> None:
    root, first, second = str(tmp_path), "52-54-00-00-00-05", "52-54-00-00-00-06"
    live.wait_for(f"read {root}/loopnet.loopnet/{first}")
    # a new file is read at once
    assert not add_host(NETWORK, B, root)
    live.wait_for(f"read {root}/loopnet.loopnet/{second}")
    # a changed name is refused before SIGHUP, and good after it
    assert add_host(NETWORK, B._replace(name="new"), root)
    live.wait_for("duplicate dhcp-host IP address 10.127.1.6")
    assert reload("loopnet", root)
    live.wait_for(f"read {root}/loopnet.loopnet/{second}", 3)
    # an address that moved is refused before SIGHUP, and good after it
    assert sync_hosts(NETWORK, [B._replace(number=5)], root)
    live.wait_for("duplicate dhcp-host IP address 10.127.1.5")
    assert reload("loopnet", root)
    live.wait_for(f"read {root}/loopnet.loopnet/{second}", 5)
    log = live.log.read_text()
    assert log.count("duplicate") == 2
    assert "/." not in log.replace(root, "")
