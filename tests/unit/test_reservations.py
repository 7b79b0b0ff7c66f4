"""The store: what is saved is loaded, by one writer at a time, and nothing damages it."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libvirt_loopnet import process
from libvirt_loopnet.addresses.publications import clash
from libvirt_loopnet.addresses.reservations import parse, render
from libvirt_loopnet.addresses.store import Store
from libvirt_loopnet.errors import InputError, LoopnetError, PrivilegeError, StateError
from libvirt_loopnet.files import file_name, network_name, state_error
from libvirt_loopnet.model import ANY_ADDRESS, EVERYBODY, PROTOCOLS, Publication, Reservation

ROOT = Path(__file__).resolve().parents[2]
UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
A = Reservation(5, "52:54:00:12:34:56", UUID, "vm1")
B = Reservation(7, "52:54:00:00:00:07", "", "")
TEXT = f"""\
# libvirt-loopnet reservations, version 1
5 52:54:00:12:34:56 {UUID} vm1
7 52:54:00:00:00:07 - -
# end 2
"""


def save(store: Store, name: str, *held: Reservation) -> None:
    with store.locked():
        store.save(name, held)


def mac_of(number: int) -> str:
    return f"52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


addresses = st.just(ANY_ADDRESS) | st.integers(0x0A000000, 0x0A0000FF).map(IPv4Address)
ports = st.integers(1, 65535)
clients = st.just(EVERYBODY) | st.integers(0, 32).map(lambda length: IPv4Network((0x0A000000, length), False))
publications = st.builds(
    Publication, st.sampled_from(PROTOCOLS), addresses, ports, ports, st.just(1), clients
) | st.builds(
    lambda protocol, port, last: Publication(protocol, ANY_ADDRESS, port, 80, last - port + 1),
    st.sampled_from(PROTOCOLS), st.integers(1, 100), st.integers(101, 200),
)  # fmt: skip
further = st.just(()) | st.sets(st.integers(0, 9), max_size=3).map(lambda them: tuple(sorted(them)))


def apart(index: int, kept: Reservation) -> Reservation:
    """What is shared may be in several, what isn't in no other."""
    return kept._replace(
        also=tuple(2**23 + 10 * index + each for each in kept.also),
        shared=tuple(2**24 + each for each in kept.shared),
    )


reservations: st.SearchStrategy[list[Reservation]] = (
    st.lists(
        st.builds(
            Reservation,
            st.integers(1, 2**23 - 2),
            st.integers(0, 2**24 - 1).map(mac_of),
            st.just("") | st.uuids().map(str),
            st.from_regex(r"\A([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?\Z"),
            st.just(())
            | st.lists(publications, max_size=3, unique=True).map(lambda them: tuple(sorted(them))),
            further,
            further,
        ),
        max_size=30,
        unique_by=(lambda each: each.number, lambda each: each.mac),
    )
    .map(lambda held: [apart(index, each) for index, each in enumerate(held)])
    .filter(lambda held: clash(port for each in held for port in each.published) is None)
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "state"))


def test_the_file_reads_as_documented(store: Store) -> None:
    save(store, "loopnet", B, A)
    assert (Path(store.directory) / "loopnet.reservations").read_text() == TEXT
    assert store.load("loopnet") == (A, B)


PUBLISHED = f"""\
# libvirt-loopnet reservations, version 2
5 52:54:00:12:34:56 {UUID} vm1 8080:80/tcp,192.0.2.7:53:5353/udp
7 52:54:00:00:00:07 - - -
# end 2
"""
WEB = Publication("tcp", ANY_ADDRESS, 8080, 80)
DNS = Publication("udp", IPv4Address("192.0.2.7"), 53, 5353)


def test_what_is_published_makes_it_version_2(store: Store) -> None:
    """And only that, so that those who publish nothing can go back to an older release."""
    path = Path(store.directory) / "loopnet.reservations"
    save(store, "loopnet", A, B)
    assert path.read_text() == TEXT
    save(store, "loopnet", A._replace(published=(WEB, DNS)), B)
    assert path.read_text() == PUBLISHED
    assert store.load("loopnet") == (A._replace(published=(WEB, DNS)), B)
    save(store, "loopnet", A, B)
    assert path.read_text() == TEXT


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("8080:80/tcp", "8080:80"), ("8080:80/tcp", "08080:80/tcp"), ("8080:80/tcp", "0.0.0.0:8080:80/tcp"),
        ("8080:80/tcp", "80800:80/tcp"), ("8080:80/tcp,", ","), ("/udp", "/sctp"),
        ("8080:80/tcp,192.0.2.7:53:5353/udp", "192.0.2.7:53:5353/udp,8080:80/tcp"), (" - -\n", " -\n"),
        ("192.0.2.7:53:5353/udp", "192.0.2.7:8080:5353/tcp"), (" - - -\n", " - - 8080:1/tcp\n"),
        ("192.0.2.7", "127.0.0.1"), (" - - -\n", " - - - -\n"), (" - - -\n", " - - \n"),
    ],
)  # fmt: skip
def test_damaged_publications(right: str, wrong: str) -> None:
    assert right in PUBLISHED
    text = PUBLISHED.replace(right, wrong, 1)
    with pytest.raises(StateError, match=r"^x(: |).*(line [23]|claims a port)"):
        parse(text, "x")


FURTHER = f"""\
# libvirt-loopnet reservations, version 4
5 52:54:00:12:34:56 {UUID} vm1 8080:80/tcp 20,30,40/shared
7 52:54:00:00:00:07 - - - 21,40/shared,41/shared
8 52:54:00:00:00:08 - - - -
# end 3
"""


def test_further_numbers_make_it_version_4(store: Store) -> None:
    """And only they do."""
    path = Path(store.directory) / "loopnet.reservations"
    save(store, "loopnet", A, B)
    assert path.read_text() == TEXT
    c = Reservation(8, "52:54:00:00:00:08", "", "")
    wider = (
        A._replace(published=(WEB,), also=(20, 30), shared=(40,)),
        B._replace(also=(21,), shared=(40, 41)),
        c,
    )
    save(store, "loopnet", *wider)
    assert path.read_text() == FURTHER
    assert store.load("loopnet") == wider
    save(store, "loopnet", A, B)
    assert path.read_text() == TEXT


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("20,30", "30,20"), ("20,30", "20,20"), ("20,30", "020,30"), ("20,30", "20,,30"), ("20,30", "20, 30"),
        ("20,30,40/shared", "40/shared,20,30"), ("40/shared,41", "41/shared,40"), (" - - - -\n", " - - -\n"),
        ("/shared", "/tcp"), ("20,30", "/shared"), ("20,30", "5"), ("20,30", "7"), ("20,30", "21"),
        ("20,30", "41"), ("40/shared,41", "5"), (" - - - -\n", " - - - \n"), ("version 4", "version 3"),
    ],
)  # fmt: skip
def test_damaged_further_numbers(right: str, wrong: str) -> None:
    assert right in FURTHER
    with pytest.raises(StateError, match=r"^x(: |).*(line [234]|appears twice)"):
        parse(FURTHER.replace(right, wrong, 1), "x")


@given(reservations)
def test_what_is_rendered_is_parsed(held: list[Reservation]) -> None:
    assert parse(render(held), "x") == tuple(sorted(held))


@given(reservations, st.data())
def test_a_file_cut_short_anywhere_is_seen(held: list[Reservation], data: st.DataObject) -> None:
    text = render(held)
    with pytest.raises(StateError):
        parse(text[: data.draw(st.integers(0, len(text) - 1))], "x")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(held=st.lists(reservations, min_size=1, max_size=3))
def test_round_trip(held: list[list[Reservation]], store: Store) -> None:
    with store.locked():
        for index, each in enumerate(held):
            store.save(f"net{index}", each)
        for index, each in enumerate(held):
            assert store.load(f"net{index}") == tuple(sorted(each))


def test_nothing_saved_yet(store: Store) -> None:
    assert store.load("loopnet") == ()
    assert store.networks() == []
    save(store, "loopnet")
    assert store.networks() == []


def test_saving_the_same_writes_nothing(store: Store) -> None:
    save(store, "loopnet", A, B)
    before = os.stat(Path(store.directory) / "loopnet.reservations")
    save(store, "loopnet", B, A)
    after = os.stat(Path(store.directory) / "loopnet.reservations")
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_modes_do_not_depend_on_the_umask(store: Store) -> None:
    old = os.umask(0o077)
    try:
        save(store, "loopnet", A)
    finally:
        os.umask(old)
    directory = Path(store.directory)
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert directory.stat().st_mode & 0o777 == 0o755
    assert modes == {"loopnet.reservations": 0o644, "lock": 0o600}


def test_a_stale_temporary_file_is_removed(store: Store) -> None:
    save(store, "loopnet", A)
    stale = Path(store.directory) / ".new"
    stale.write_text("half a li")
    with store.locked():
        assert not stale.exists()
    assert store.load("loopnet") == (A,)


def test_what_is_there_twice_is_named(store: Store) -> None:
    save(store, "loopnet", A._replace(number=3, mac="52:54:00:00:00:03"), A, B)
    text = Path(store._path("loopnet")).read_text().replace("7 52", f"{A.number} 52")
    with pytest.raises(StateError, match=f"host number {A.number} appears twice"):
        parse(text, "x")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: "", "line 1 is not"),
        (lambda text: text[:-1], "cut short"),
        (lambda text: text[:60], "cut short"),
        (lambda text: text.replace("# end 2\n", ""), "cut short"),
        (lambda text: text.replace("7 52:54:00:00:00:07 - -\n", ""), "has 1 reservations"),
        (
            lambda text: text.replace("version 1", "version 4"),
            "line 2 is not NUMBER MAC UUID NAME PUBLISHED FURTHER",
        ),
        (lambda text: text.replace("version 1", "version 5"), "has format version 5"),
        (lambda text: text.replace("version 1", "version 99"), "upgrade libvirt-loopnet"),
        (lambda text: text.replace("version 1", "version 2"), "line 2 is not NUMBER MAC UUID NAME PUBLISHED"),
        (lambda text: text.replace("7 52", "5 52"), "host number 5 appears twice"),
        (
            lambda text: text.replace("52:54:00:00:00:07", A.mac),
            f"MAC address {A.mac} appears twice",
        ),
        (lambda text: text.replace("vm1", "vm 1"), "line 2 is not NUMBER MAC UUID NAME"),
        (lambda text: text.replace("vm1", ""), "line 2 is not NUMBER MAC UUID NAME"),
        (lambda text: text.replace("7 52", "x 52"), "line 3 is not NUMBER MAC UUID NAME"),
        (lambda text: text.replace("7 52", "0 52"), "line 3"),
        (lambda text: text.replace("7 52", "07 52"), "line 3"),
        (lambda text: text.replace("7 52", "² 52"), "not ASCII"),
        (lambda text: text.replace("52:54:00:12", "52:54:00:1G"), "line 2"),
        (lambda text: text.replace("52:54:00:12", "52-54-00-12"), "line 2"),
        (lambda text: text.replace(UUID, UUID[1:]), "line 2"),
        (lambda text: text.replace("\n", "\r\n"), "line 1 is not"),
        (lambda text: "\0" * len(text), "line 1 is not"),
    ],
)
def test_a_damaged_file_is_an_error_and_stays_as_it_is(
    store: Store, damage: Callable[[str], str], says: str
) -> None:
    save(store, "loopnet", A, B)
    path = Path(store.directory) / "loopnet.reservations"
    path.write_bytes(damage(TEXT).encode())
    damaged = path.read_bytes()
    for attempt in (lambda: store.load("loopnet"), lambda: save(store, "loopnet", A)):
        with pytest.raises(StateError) as caught:
            attempt()
        assert says in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    "bad",
    [A._replace(name="a b"), A._replace(name="a\nb"), A._replace(mac="x"), A._replace(number=0)],
)
def test_what_could_not_be_read_again_is_not_written(store: Store, bad: Reservation) -> None:
    save(store, "loopnet", B)
    with pytest.raises(StateError):
        save(store, "loopnet", bad)
    with pytest.raises(StateError):
        save(store, "loopnet", A, A)
    assert store.load("loopnet") == (B,)


def test_saving_needs_the_lock(store: Store) -> None:
    with pytest.raises(StateError):
        store.save("loopnet", [A])


@pytest.mark.parametrize("name", ["loopnet", ".", "..", ".hidden", "a b", "ü%41", "a/../b", "x\0"])
def test_any_name_of_a_network_is_a_safe_file_name(store: Store, name: str) -> None:
    save(store, name, A)
    assert store.networks() == [name]
    assert sorted(os.listdir(store.directory)) == sorted(["lock", file_name(name) + ".reservations"])


@given(st.text(min_size=1, max_size=20))
def test_file_names_are_safe_and_lead_back(name: str) -> None:
    encoded = file_name(name)
    assert network_name(encoded) == name
    assert encoded[0] != "."
    assert set(encoded) <= {*string.ascii_letters, *string.digits, *"._-%"}


def test_names_that_give_no_file_name() -> None:
    for name in ("", "ü" * 100):
        with pytest.raises(InputError):
            file_name(name)


def test_a_hanging_holder_is_named(store: Store) -> None:
    with store.locked():
        began = time.monotonic()
        with pytest.raises(StateError) as caught, Store(store.directory).locked(timeout=0.1):
            pass
        assert 0.1 <= time.monotonic() - began < 10
    assert f"locked by process {os.getpid()} for 0.1 seconds" in str(caught.value)
    with Store(store.directory).locked(timeout=0):
        pass


def test_a_holder_whose_program_takes_its_time_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that starts is not refused because somebody mends a busy host at the moment."""
    with ExitStack() as holder:
        holder.enter_context(store.locked())
        began, now = 100.0, [100.0]
        told: list[tuple[float, str]] = []

        def sleep(seconds: float) -> None:
            now[0] += seconds
            if now[0] > began + process.TIMEOUT + 5:
                holder.close()

        monkeypatch.setattr("libvirt_loopnet.files.time.monotonic", lambda: now[0])
        monkeypatch.setattr("libvirt_loopnet.files.time.sleep", sleep)
        monkeypatch.setattr("libvirt_loopnet.files.warn", lambda line: told.append((now[0], line)))
        with Store(store.directory).locked():
            assert now[0] > began + process.TIMEOUT
    ((when, line),) = told  # so that who looks why virsh hangs finds it soon, and once
    assert when < began + 5
    assert line.startswith(f"waiting for {store.directory}/lock, which process {os.getpid()} has locked; see")


def test_a_holder_that_did_not_sign_is_not_mistaken_for_the_last_that_did(store: Store) -> None:
    with store.locked():
        pass
    lock = Path(store.directory, "lock")
    lock.write_text("999999999\n")  # ended long ago
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StateError) as caught, Store(store.directory).locked(timeout=0):
            pass
    assert f"locked by another process for 0 seconds; see which: fuser -v {lock}" in str(caught.value)


def test_locked_inside_locked(store: Store) -> None:
    with store.locked():
        with store.locked(timeout=0):
            store.save("loopnet", [A])
        store.save("loopnet", [B])
    assert store.load("loopnet") == (B,)


def test_a_full_disk_leaves_the_old_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, "loopnet", A)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError) as caught:
        save(store, "loopnet", B)
    assert "no space left on device; free some space on that disk" in str(caught.value)
    monkeypatch.undo()
    assert store.load("loopnet") == (A,)
    assert sorted(os.listdir(store.directory)) == ["lock", "loopnet.reservations"]


def can_mount() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "t", "/mnt"]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


FULL = """
import sys
from libvirt_loopnet.errors import StateError
from libvirt_loopnet.model import Reservation
from libvirt_loopnet.addresses.store import Store
def held(count):
    macs = [f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(1, count)]
    return [Reservation(n, mac, "", "") for n, mac in enumerate(macs, 1)]
store = Store(sys.argv[1])
with store.locked():
    store.save("loopnet", held(300))
    try:
        store.save("loopnet", held(3000))
    except StateError as error:
        print(error)
    assert store.load("loopnet") == tuple(held(300))
"""


@pytest.mark.skipif(not can_mount(), reason="needs root and a private mount namespace")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=64k t "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-m", "sh", "-c", script, "-", str(tmp_path), sys.executable, FULL]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no space left on device" in done.stdout


@pytest.mark.skipif(not can_mount(), reason="needs root and a private mount namespace")
def test_a_read_only_directory(tmp_path: Path) -> None:
    save(Store(str(tmp_path)), "loopnet", A)
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" -c "$3" "$1"'
    reader = (
        "import sys; from libvirt_loopnet.addresses.store import Store\n"
        "s = Store(sys.argv[1]); print(s.load('loopnet')[0].number)\n"
        "try:\n    s.locked().__enter__()\nexcept Exception as e: print(type(e).__name__, e)"
    )
    command = ["unshare", "-m", "sh", "-c", script, "-", str(tmp_path), sys.executable, reader]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == (
        f"5\nStateError {tmp_path}/lock: read-only file system; make that file system writable\n"
    )


def test_without_the_right_to_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    error = state_error("/x", PermissionError(errno.EACCES, "Permission denied"))
    assert isinstance(error, PrivilegeError)
    assert str(error) == "/x: permission denied; run this as root"


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(str(tmp_path / "file"))
    for attempt in (store.networks, lambda: store.load("x"), lambda: save(store, "x", A)):
        with pytest.raises(LoopnetError) as caught:
            attempt()
        assert str(tmp_path / "file") in str(caught.value)


RESERVE = """
import sys
from ipaddress import IPv4Network
from libvirt_loopnet.model import Network
from libvirt_loopnet.addresses.pool import reserve
from libvirt_loopnet.addresses.store import Store
net = Network("loopnet", "", "", "", "mapped", IPv4Network("127.1.0.0/24"),
              IPv4Network("10.127.1.0/24"), 1, 254, "loopnet")
store = Store(sys.argv[1])
with store.locked():
    mac = f"52:54:00:00:00:{int(sys.argv[2]):02x}"
    held, got = reserve(net, store.load("loopnet"), mac, "", "vm")
    store.save("loopnet", held)
print(got.number)
"""


def test_fifty_processes_get_fifty_numbers(store: Store) -> None:
    command = [sys.executable, "-S", "-c", RESERVE, store.directory]
    processes = [
        subprocess.Popen([*command, str(index)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for index in range(50)
    ]
    numbers = sorted(int(process.communicate()[0]) for process in processes)
    assert numbers == list(range(2, 52))
    assert [each.number for each in store.load("loopnet")] == numbers


WRITE_FOREVER = """
import sys
from libvirt_loopnet.model import Reservation
from libvirt_loopnet.addresses.store import Store
store, count = Store(sys.argv[1]), 0
while True:
    count += 1
    if count == 2:
        print("wrote one", flush=True)
    with store.locked():
        store.save("loopnet", [Reservation(n, f"52:54:00:00:00:{n:02x}", "", f"v{count}")
                               for n in range(1, 100)])
    if count == 1:
        print("ready", flush=True)
"""


@pytest.fixture
def writer(store: Store) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-S", "-c", WRITE_FOREVER, store.directory]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("seed", range(8))
def test_a_killed_writer_leaves_old_or_new(store: Store, writer: subprocess.Popen[str], seed: int) -> None:
    time.sleep(random.Random(seed).random() / 50)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    held = store.load("loopnet")
    assert [each.number for each in held] == list(range(1, 100))
    assert len({each.name for each in held}) == 1
    save(store, "loopnet", A)  # the lock went with the process
    assert sorted(os.listdir(store.directory)) == ["lock", "loopnet.reservations"]


def test_a_reader_without_lock_sees_whole_files(store: Store, writer: subprocess.Popen[str]) -> None:
    seen = {tuple({each.name for each in store.load("loopnet")}) for _ in range(300)}
    assert all(len(names) <= 1 for names in seen)
    assert writer.poll() is None


def test_lines_load_in_linear_time(store: Store) -> None:
    def seconds(count: int) -> float:
        save(store, "loopnet", *(Reservation(n, mac_of(n), UUID, f"vm{n}") for n in range(1, count + 1)))
        times = []
        for _ in range(7):
            began = time.process_time()
            assert len(store.load("loopnet")) == count
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(2000) < 40 * seconds(200)
