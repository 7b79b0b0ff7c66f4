"""/etc/hosts: our block comes and goes, and every byte of others stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libvirt_loopnet.errors import HostError, InputError, PrivilegeError, StateError
from libvirt_loopnet.files import lock_file
from libvirt_loopnet.host import hosts_file
from libvirt_loopnet.host.hosts_file import publish, published, render_hosts

ROOT = Path(__file__).resolve().parents[2]
VM1 = (IPv4Address("127.1.0.5"), ("vm1.loopnet",))
VM2 = (IPv4Address("127.1.0.6"), ("vm2.loopnet", "web"))
BEGIN = b"# libvirt-loopnet: begin (do not edit; names of running guests)\n"
BEGIN_NO_NEWLINE = BEGIN.replace(b")", b"; no newline before)")
LINE1 = b"127.1.0.5 vm1.loopnet # libvirt-loopnet: guest\n"
LINE2 = b"127.1.0.6 vm2.loopnet web # libvirt-loopnet: guest\n"
END = b"# libvirt-loopnet: end\n"
OURS = [BEGIN, BEGIN_NO_NEWLINE, LINE1, LINE2, END]

foreign_lines = st.sampled_from(
    [b"127.0.0.1 localhost", b"", b"\r", b"::1 ip6\r", b"\xff\0", b"# loopnet", b"# guest", b"a\rb"]
)
foreign_files = st.builds(
    lambda lines, end: b"\n".join(lines) + end,
    st.lists(foreign_lines, max_size=6),
    st.sampled_from([b"", b"\n"]),
)
addresses = st.integers(0x7F010001, 0x7F01FFFE).map(IPv4Address)
host_names = st.lists(st.sampled_from(["vm1.loopnet", "a-b", "x9"]), min_size=1).map(tuple)
entry_lists = st.lists(st.tuples(addresses, host_names), max_size=3)


def test_addresses_of_both_kinds(tmp_path: Path) -> None:
    """IPv4 first, each kind in order; and they are read back."""
    path, lock = hosts(tmp_path), str(tmp_path / "lock")
    six = [(IPv6Address(f"fd12::{last}"), (f"vm{last}.loopnet",)) for last in ("10", "2")]
    assert publish([*six, VM1], path, lock)
    assert published(path) == (VM1, six[1], six[0])
    assert not publish([VM1, *six], path, lock)
    assert publish([], path, lock)
    assert Path(path).read_bytes() == b"127.0.0.1 localhost\n"


def hosts(directory: Path, data: bytes = b"127.0.0.1 localhost\n") -> str:
    (directory / "hosts").write_bytes(data)
    return str(directory / "hosts")


def put(entries: Sequence[hosts_file.Entry], path: str) -> bool:
    return publish(entries, path, os.path.dirname(path) + "/lock")


def test_the_block_reads_as_documented() -> None:
    old = b"127.0.0.1 localhost\n"
    assert render_hosts(old, [VM2, VM1]) == old + BEGIN + LINE1 + LINE2 + END
    assert render_hosts(b"x", [VM1]) == b"x\n" + BEGIN_NO_NEWLINE + LINE1 + END
    assert render_hosts(b"", [VM1]) == BEGIN + LINE1 + END


@given(foreign_files, entry_lists, entry_lists)
@example(b"", [VM1], [])
@example(b"no newline", [VM1], [VM2])
@example(b"\n", [VM1], [VM1])
def test_foreign_bytes_stay_and_come_back_exactly(
    foreign: bytes, first: list[hosts_file.Entry], second: list[hosts_file.Entry]
) -> None:
    with_first = render_hosts(foreign, first)
    assert with_first.startswith(foreign)
    assert render_hosts(with_first, first) == with_first
    assert render_hosts(with_first, second) == render_hosts(foreign, second)
    assert render_hosts(with_first, []) == foreign


any_lines = st.sampled_from(OURS) | foreign_lines.map(lambda line: line + b"\n")


@given(st.lists(any_lines, max_size=8), entry_lists)
def test_damaged_blocks_lose_our_lines_and_no_others(
    pieces: list[bytes], entries: list[hosts_file.Entry]
) -> None:
    theirs = b"".join(piece for piece in pieces if piece not in OURS)
    cleaned = render_hosts(b"".join(pieces), [])
    # the newline before a block that says so is ours
    assert cleaned in (theirs, theirs[:-1])
    assert BEGIN_NO_NEWLINE in pieces or cleaned == theirs
    assert render_hosts(render_hosts(b"".join(pieces), entries), []) == cleaned


@given(foreign_files, foreign_files.filter(bool))
def test_what_others_append_stays(foreign: bytes, appended: bytes) -> None:
    changed = render_hosts(foreign, [VM1]) + appended
    assert render_hosts(changed, []) in (foreign + appended, foreign + b"\n" + appended)
    assert render_hosts(changed, [VM2]).count(b"begin") == 1


def test_lines_of_others_inside_the_block_stay() -> None:
    old = b"a\n" + BEGIN + b"10.0.0.1 theirs\n" + LINE1 + b"10.0.0.2 too # loopnet\n" + END
    assert render_hosts(old, []) == b"a\n10.0.0.1 theirs\n10.0.0.2 too # loopnet\n"


def test_a_file_converted_to_crlf() -> None:
    for foreign in (b"a\nb\n", b"a\nb"):
        crlf = render_hosts(foreign, [VM1]).replace(b"\n", b"\r\n")
        assert render_hosts(crlf, []) == foreign.replace(b"\n", b"\r\n")


def test_the_last_newline_cut_off() -> None:
    for foreign in (b"a\nb\n", b"a\nb", b""):
        assert render_hosts(render_hosts(foreign, [VM1])[:-1], []) == foreign


def test_entries_without_names_make_no_block() -> None:
    assert render_hosts(b"a\n", [(VM1[0], ())]) == b"a\n"


@pytest.mark.parametrize("bad", ["", "a b", "a\nb", "a#", "é", "a\0"])
def test_what_is_no_name_never_gets_in(bad: str) -> None:
    with pytest.raises(InputError):
        render_hosts(b"", [(VM1[0], (bad,))])


def test_a_huge_file_takes_no_time() -> None:
    foreign = b"0.0.0.0 advertisement.example.com\n" * 500_000
    began = time.process_time()
    with_block = render_hosts(foreign, [VM1])
    assert render_hosts(with_block, []) == foreign
    assert time.process_time() - began < 5


def test_publish_and_take_back(tmp_path: Path) -> None:
    path = hosts(tmp_path, b"x")
    assert put([VM1, VM2], path)
    assert published(path) == (VM1, VM2)
    assert not put([VM2, VM1], path)
    assert put([], path)
    assert (published(path), Path(path).read_bytes()) == ((), b"x")
    assert sorted(os.listdir(tmp_path)) == ["hosts", "lock"]


def test_publishing_the_same_touches_nothing(tmp_path: Path) -> None:
    path = hosts(tmp_path)
    assert not put([], path)
    assert os.listdir(tmp_path) == ["hosts"]


def test_a_changed_line_of_ours_is_no_entry(tmp_path: Path) -> None:
    path = hosts(tmp_path, BEGIN + b"127.1.0 x # libvirt-loopnet: guest\n" + LINE2 + END)
    assert published(path) == (VM2,)


def test_a_missing_file_is_made_only_for_entries(tmp_path: Path) -> None:
    path = str(tmp_path / "hosts")
    assert published(path) == ()
    assert not put([], path)
    assert not os.path.exists(path)
    old = os.umask(0o077)
    try:
        assert put([VM1], path)
    finally:
        os.umask(old)
    assert os.stat(path).st_mode & 0o7777 == 0o644


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = hosts(tmp_path / "real")
    link = tmp_path / "hosts"
    link.symlink_to("real/hosts")
    assert put([VM1], str(link))
    assert link.is_symlink()
    assert published(real) == (VM1,)


def can_set_attributes(directory: Path) -> bool:
    try:
        os.setxattr(directory, "user.test", b"1")
    except OSError:
        return False
    return True


def test_mode_owner_and_attributes_are_kept(tmp_path: Path) -> None:
    path = hosts(tmp_path)
    os.chmod(path, 0o640)
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
    attributes = {"user.label": b"etc"} if can_set_attributes(tmp_path) else {}
    for name, value in attributes.items():
        os.setxattr(path, name, value)
    before = os.stat(path)
    assert put([VM1], path)
    after = os.stat(path)
    assert after.st_ino != before.st_ino
    kept = ("st_mode", "st_uid", "st_gid")
    assert [getattr(after, key) for key in kept] == [getattr(before, key) for key in kept]
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == attributes


def test_a_change_by_another_program_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hosts(tmp_path)
    real, edits = hosts_file._write_temporary, [b"one\n", b"two\n"]

    def interrupted(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        if edits:
            Path(path).write_bytes(Path(path).read_bytes() + edits.pop(0))

    monkeypatch.setattr(hosts_file, "_write_temporary", interrupted)
    assert put([VM1], path)
    assert Path(path).read_bytes() == b"127.0.0.1 localhost\none\ntwo\n" + BEGIN + LINE1 + END
    assert sorted(os.listdir(tmp_path)) == ["hosts", "lock"]


def test_a_program_that_never_stops_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hosts(tmp_path)
    monkeypatch.setattr(hosts_file, "_write_temporary", lambda *_: Path(path).write_bytes(os.urandom(9)))
    monkeypatch.setattr(os, "unlink", lambda _: None)
    with pytest.raises(HostError, match="being changed by another program"):
        put([VM1], path)


@pytest.mark.parametrize("refusal", [errno.EBUSY, errno.EXDEV])
def test_in_place_where_it_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    path = hosts(tmp_path, b"x")
    inode = os.stat(path).st_ino

    def refuse(*_: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "rename", refuse)
    for entries in ([VM1], [VM2, VM1], [VM2], []):
        assert put(entries, path)
        assert Path(path).read_bytes() == render_hosts(b"x", entries)
    assert os.stat(path).st_ino == inode
    assert sorted(os.listdir(tmp_path)) == ["hosts", "lock"]


def test_in_place_a_change_by_another_program_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hosts(tmp_path)
    edits = [b"one\n", b"two\n"]

    def refuse(*_: object) -> None:
        if edits:
            Path(path).write_bytes(Path(path).read_bytes() + edits.pop(0))
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(os, "rename", refuse)
    assert put([VM1], path)
    assert Path(path).read_bytes() == b"127.0.0.1 localhost\none\ntwo\n" + BEGIN + LINE1 + END


def test_a_disk_full_in_place_restores_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hosts(tmp_path)
    old = Path(path).read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(errno.EBUSY, "busy")

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset > len(old):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:10], offset)

    real = os.pwrite
    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(HostError, match="no space left on device"):
        put([VM1], path)
    assert Path(path).read_bytes() == old


def test_errors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = str(tmp_path / "none" / "hosts")
    with pytest.raises(HostError) as caught:
        publish([VM1], missing, str(tmp_path / "lock"))
    assert str(caught.value) == (
        f"{missing}, for guests' names, can't be written: no such file or directory; fix that, "
        'or set names = "off" in /etc/libvirt-loopnet.conf'
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    error = hosts_file._error("/etc/hosts", PermissionError(errno.EACCES, "denied"), "read")
    assert isinstance(error, PrivilegeError)


def test_a_hanging_lock_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hosts(tmp_path)
    monkeypatch.setattr(hosts_file, "_LOCK_SECONDS", 0.05)
    with lock_file(str(tmp_path / "lock"), 1), pytest.raises(StateError, match="locked by process"):
        put([VM1], path)


def can_mount() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "t", "/mnt"]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


PUBLISH = """
import sys
from ipaddress import IPv4Address
from libvirt_loopnet.host.hosts_file import publish
for entries in ([(IPv4Address("127.1.0.5"), ("vm1.loopnet",))], []):
    try:
        print(publish(entries, sys.argv[1], sys.argv[2]))
    except Exception as error:
        print(type(error).__name__, error)
    print(open(sys.argv[1]).read().count("vm1.loopnet"))
"""
BIND = 'mount --bind "$1" "$1"; '
READ_ONLY_DIRECTORY = 'mount --bind "${1%/*}" "${1%/*}"; mount --bind "$1" "$1"; '
READ_ONLY_DIRECTORY += 'mount -o remount,ro,bind "${1%/*}"; '
READ_ONLY = 'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; '


@pytest.mark.skipif(not can_mount(), reason="needs root and a private mount namespace")
@pytest.mark.parametrize(
    ("mounts", "output"),
    [
        (BIND, "True\n1\nTrue\n0\n"),
        (READ_ONLY_DIRECTORY, "True\n1\nTrue\n0\n"),
        (
            READ_ONLY,
            "HostError HOSTS, for guests' names, can't be written: read-only file system; "
            'fix that, or set names = "off" in /etc/libvirt-loopnet.conf\n0\nFalse\n0\n',
        ),
    ],
)
def test_mounted_files(tmp_path: Path, mounts: str, output: str) -> None:
    (tmp_path / "etc").mkdir()
    path = hosts(tmp_path / "etc", b"127.0.0.1 localhost")
    script = mounts + 'exec "$2" -c "$3" "$1" "$4"'
    command = ["unshare", "-m", "sh", "-ec", script, "-", path]
    command += [sys.executable, PUBLISH, str(tmp_path / "lock")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.replace(path, "HOSTS") == output
    assert Path(path).read_bytes() == b"127.0.0.1 localhost"


def test_many_publishers_at_once(tmp_path: Path) -> None:
    path = hosts(tmp_path, b"x")
    command = [sys.executable, "-S", "-c", PUBLISH, path, str(tmp_path / "lock")]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for process in processes:
        assert "Error" not in process.communicate()[0]
    assert Path(path).read_bytes() == b"x"
