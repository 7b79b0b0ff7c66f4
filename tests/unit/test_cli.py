"""The command line without a machine: usage, bad input, what is imported, what is printed."""

from __future__ import annotations

import atexit
import functools
import json
import os
import pty
import shutil
import stat
import subprocess
import sys
import tempfile
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from libvirt_loopnet import cli
from libvirt_loopnet.addresses.store import Store
from libvirt_loopnet.commands import define, release, reserve
from libvirt_loopnet.commands.shared import inventory, output
from libvirt_loopnet.commands.shared.inventory import Entry, find
from libvirt_loopnet.commands.shared.prefix_options import Asked
from libvirt_loopnet.converge import drift
from libvirt_loopnet.daemon import hookfiles
from libvirt_loopnet.errors import ConflictError, HostError, InputError, LoopnetError
from libvirt_loopnet.host import admitted, linux
from libvirt_loopnet.host.admitted import Admitted
from libvirt_loopnet.ipv6 import Choice, ula_prefix
from libvirt_loopnet.model import Network, Port, Reservation
from libvirt_loopnet.networks.parsing import parse_network
from libvirt_loopnet.planning.plan import HOSTS, IP, NETLINK, NFT, Step
from libvirt_loopnet.planning.state import Tap
from libvirt_loopnet.plugging import bridge_ports
from libvirt_loopnet.ruleset.tables import delete_tables

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
FROM_CHECKOUT = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); "
PROGRAM = f"{FROM_CHECKOUT}from libvirt_loopnet.cli import program; program()"
"""As packaging/loopnet.in has it."""
MAIN = f"{FROM_CHECKOUT}from libvirt_loopnet.cli import main; status = main(); {{}}sys.exit(status)"


@functools.cache
def copy_for_others() -> str:
    """A copy of the package that every user can read: a checkout may lie below /root, which is mode 0700."""
    directory = tempfile.mkdtemp(prefix="loopnet-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    os.chmod(directory, 0o755)
    shutil.copytree(CHECKOUT / "libvirt_loopnet", f"{directory}/libvirt_loopnet")
    return directory


ROOT = os.geteuid() == 0
BOMB = '<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY c "&b;&b;">]><network>&c;</network>'


def loopnet(
    *arguments: str, after: str = "", stdin: bytes = b"", user: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    code = MAIN.format(after) if after else PROGRAM
    if user:
        code = code.replace(str(CHECKOUT), copy_for_others())
    return subprocess.run(
        [PYTHON, "-I", "-c", code, *arguments],
        input=stdin, capture_output=True, timeout=60, env=environment, user=user, check=False,
        extra_groups=[] if user else None, cwd="/",
    )  # fmt: skip


# --- usage ---------------------------------------------------------------------------------------


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    told = {line.split()[0] for line in lines if line.startswith("  ")}
    for verb in cli.VERBS:
        assert {verb.name, f"[un]{verb.name.removeprefix('un')}"} & told


@pytest.mark.parametrize("verb", [verb.name for verb in cli.VERBS])
def test_every_verb_has_help_that_fits(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    text, errors = capsys.readouterr()
    assert text.startswith(f"usage: loopnet {verb}")
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100
    assert "``" not in text
    assert not errors


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "loopnet 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no command was given; see: loopnet --help"),
        (["lst"], "there is no command 'lst'; did you mean: loopnet list?"),
        (["a\nb\x1b[1m"], "there is no command 'a\\nb\\x1b[1m'; see: loopnet --help"),
        (["\udcff" * 1000], "there is no command '"),
        (["--conect", "x"], "unrecognized arguments: --conect"),
        (["--connect"], "argument --connect: expected one argument; see: loopnet --help"),
        (["list", "--connect"], "expected one argument; see: loopnet list --help"),
        (["list", "--jso"], "unrecognized arguments: --jso; see: loopnet list --help"),
        (["list", "x"], "unrecognized arguments: x"),
        (["ip"], "the following arguments are required: GUEST; see: loopnet ip --help"),
        (["ip", "a", "b"], "unrecognized arguments: b"),
        (
            ["reserve", "vm1", "--also", "a", "--shared", "b"],
            "argument --shared: not allowed with argument --also",
        ),
        (["convert"], "the following arguments are required: NETWORK"),
        (["convert", "x", "--print-xml", "--print-diff"], "not allowed with argument"),
        (["define", "--mode", "x"], "argument --mode: invalid choice: 'x'"),
        (["define", "a/b"], "network name 'a/b' must be letters"),
        (["define", ""], "network name '' must be letters"),
        (["define", "--loop-prefix", "127.1.0.0"], "has no length; write it as ADDRESS/LENGTH"),
        (["define", "--loop-prefix", "127.1.0.1/24"], "did you mean 127.1.0.0/24?"),
        (["define", "--loop-prefix", "10.1.0.0/24"], "is outside 127.0.0.0/8"),
        (["define", "--loop-prefix", "127.0.1.0/24"], "overlaps 127.0.0.0/16"),
        (["define", "--loop-prefix", "127.1.0.0/30"], "from /9 to /29"),
        (["define", "--guest-prefix", "10.0.0.0/8"], "from /9 to /29"),
        (["define", "--guest-prefix", "10.0.0.0/31"], "from /9 to /29"),
        (["define", "--guest-prefix", "fe80::/64"], "is not an IPv4 prefix"),
        (["define", "--loop-prefix", "127.1.0.0/24", "--guest-prefix", "10.0.0.0/16"], "length"),
        (["define", "--mode", "native", "--guest-prefix", "10.1.0.0/24"], "outside 127.0.0.0/8"),
        (["define", "--ipv6", "fd00::/65"], "must be a /64"),
        (["define", "--ipv6", "fe80::/64"], "is neither in fc00::/7 nor in 2000::/3"),
        (["define", "--ipv6", "2001:db8:55:55::/64"], "is not routed here"),
        (["define", "--ipv6", "10.0.0.0/24"], "is not an IPv6 prefix"),
        (["define", "a/b", "--ipv6", "ula"], "network name 'a/b' must be letters"),
        (["define", "--loop-prefix", "10.1.0.0/24", "--ipv6", "ula"], "is outside 127.0.0.0/8"),
        (["rewrite", "--ipv6", "fd00::1/64", "/nowhere"], "did you mean fd00::/64?"),
        (["rewrite", "/nowhere"], "/nowhere: no such file or directory"),
        (["rewrite", "/"], "/: is a directory"),
        (["rewrite", "a\0b"], "embedded null byte"),
        (["rewrite", "--gateway", "x"], "invalid int value: 'x'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.count("\n") == 1
    assert errors.startswith("loopnet: ")
    assert says in errors


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        (b"", "no XML was given"),
        (b"<network>", "not well-formed XML"),
        (b"<domain/>", "expected <network>, got <domain>"),
        (b"<a:network/>", "not well-formed XML"),
        (b"\xff\xfe<\0", "XML"),
        (BOMB.encode(), "XML has a DOCTYPE"),
        (b"<a>" * 100_000, "levels"),
        (b" " * (50 << 20), "no XML was given"),
        (b"<network>" + b"x" * (50 << 20) + b"</network>", "over the limit"),
        (b"<network><name>a</name><forward mode='bridge'/></network>", "forward mode bridge"),
    ],
    ids=range(10),
)
def test_rewrite_refuses_in_one_line(xml: bytes, says: str) -> None:
    done = loopnet("rewrite", stdin=xml)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert says in done.stderr.decode()


def test_rewrite_is_a_filter(tmp_path: Path) -> None:
    template = CHECKOUT / "xml-templates" / "loopnet.xml"
    nat = template.read_bytes().replace(b"127.1.0.254", b"192.168.7.1").replace(b"open", b"nat")
    nat = nat[: nat.index(b"  <metadata>")] + nat[nat.index(b"  <forward") :]
    file = tmp_path / "nat.xml"
    file.write_bytes(nat)
    asked = ("--loop-prefix", "127.77.0.0/24", "--gateway", "9")
    one, two = loopnet("rewrite", str(file), *asked), loopnet("rewrite", "-", *asked, stdin=nat)
    assert one.returncode == two.returncode == 0, one.stderr
    assert one.stdout == two.stdout
    network = parse_network(one.stdout)
    assert network is not None
    assert network.loop_prefix == IPv4Network("127.77.0.0/24")
    assert network.guest_prefix == IPv4Network("192.168.7.0/24")
    assert network.gateway == 9
    for line in one.stderr.decode().splitlines():
        assert line.startswith("loopnet: warning: network loopnet: ")
    again = loopnet("rewrite", stdin=one.stdout)
    assert (again.returncode, again.stdout) == (0, one.stdout)


def test_rewrite_says_what_it_waits_for() -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [PYTHON, "-I", "-c", PROGRAM, "rewrite"],
            stdin=theirs, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert b"try: virsh net-dumpxml NETWORK | loopnet rewrite" in done.stderr


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (HostError("two\nlines"), 4, "loopnet: two lines\n"),
        (KeyboardInterrupt(), 130, "loopnet: interrupted\n"),
        (RuntimeError("a\nb"), 4, "loopnet: RuntimeError: a b; please report this\n"),
        (RecursionError(), 4, "loopnet: RecursionError: ; please report this\n"),
        (OSError(28, "No space left on device", "/x"), 4, "loopnet: /x: no space left on device\n"),
        (FileNotFoundError(2, "No such file", "/x"), 4, "loopnet: /x: no such file\n"),
    ],
)
def test_every_error_is_one_line(
    error: BaseException,
    status: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_uri: str) -> None:
        raise error

    monkeypatch.setattr("libvirt_loopnet.commands.list.networks", fail)
    monkeypatch.delenv("LOOPNET_DEBUG", raising=False)
    assert cli.main(["list"]) == status
    assert capsys.readouterr() == ("", says)


def test_a_traceback_is_for_developers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("libvirt_loopnet.commands.list.networks", None)
    monkeypatch.setenv("LOOPNET_DEBUG", "1")
    assert cli.main(["list"]) == 4
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error() -> None:
    script = f'{PYTHON} -I -c "$1" list --help | true; echo "${{PIPESTATUS[0]}}"'
    code = f"import time; time.sleep(0.3); {PROGRAM}"
    done = subprocess.run(["bash", "-c", script, "sh", code], capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (b"141\n", b"")


def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [PYTHON, "-I", "-c", PROGRAM, "list"],
            stdout=full, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (4, b"loopnet: no space left on device\n")


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("list --help >&-", 0, b""),
        ("nosuch >&- 2>&-", 2, b""),
        ("rewrite <&-", 2, b"loopnet: no XML was given; "),
        ("rewrite <&- >&- 2>&-", 2, b""),
        ("list >/dev/full 2>/dev/full", 4, b""),
    ],
)
def test_streams_that_are_closed_or_full(command: str, status: int, says: bytes) -> None:
    """Nothing is said there, and it is no fault of ours."""
    script = f'{PYTHON} -I -c "$1" {command}'
    done = subprocess.run(["bash", "-c", script, "sh", PROGRAM], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (status, b"")
    assert done.stderr.startswith(says)
    assert done.stderr.count(b"\n") == int(bool(says))


@pytest.mark.skipif(not ROOT, reason="becomes another user")
@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["plan"],
        ["sync"],
        ["cleanup"],
        ["reserve", "vm1", "127.1.0.5"],
        ["release", "vm1"],
        ["install-hooks"],
        ["uninstall-hooks"],
        ["convert", "default"],
        ["revert", "default"],
    ],
)
def test_not_root_is_status_5(arguments: list[str]) -> None:
    done = loopnet(*arguments, user=65534)
    assert done.returncode == 5
    assert done.stdout == b""
    wanted = f"loopnet: {arguments[0]} needs root; run: sudo loopnet {arguments[0]}\n"
    assert done.stderr.decode() == wanted


def test_printing_a_definition_needs_neither_root_nor_libvirt() -> None:
    options = ("define", "x", "--print-xml", "--guest-prefix", "192.168.122.0/24")
    done = loopnet(*options, "--connect", "nonsense:///", user=65534 if ROOT else None)
    assert done.returncode == 0, done.stderr
    network = parse_network(done.stdout)
    assert network is not None
    assert network.name == network.domain == "x"
    assert network.guest_prefix == IPv4Network("192.168.122.0/24")
    assert network.loop_prefix.prefixlen == 24


# --- imports -------------------------------------------------------------------------------------

HEAVY = {"libvirt", "lxml", "pyroute2", "xml.etree", "subprocess", "json", "difflib", "dataclasses"}


@pytest.mark.skipif(not ROOT, reason="others ask libvirt")
@pytest.mark.parametrize("arguments", [["list"], ["ip", "x"], ["--help"], ["nonsense-of-mine"]])
def test_what_must_be_quick_imports_nothing_heavy(arguments: list[str]) -> None:
    done = loopnet(*arguments, after="print(*sys.modules, sep='\\n', file=sys.stderr); ")
    loaded = set(done.stderr.decode().splitlines())
    assert "libvirt_loopnet.cli" in loaded
    # from Python 3.14 on it needs dataclasses, for colours
    code = "import sys, argparse; argparse.ArgumentParser().format_help(); print(*sys.modules)"
    allowed = set(
        subprocess.run([PYTHON, "-I", "-c", code], stdout=subprocess.PIPE, text=True).stdout.split()
    )
    allowed |= {"difflib"} if arguments == ["nonsense-of-mine"] else set()
    assert not loaded & (HEAVY - allowed)


@pytest.mark.skipif(not ROOT, reason="needs nft")
def test_status_does_not_import_libvirt() -> None:
    done = loopnet("status", after="print(*sys.modules, sep='\\n', file=sys.stderr); ")
    assert not set(done.stderr.decode().splitlines()) & {"libvirt", "lxml", "pyroute2"}


# --- output --------------------------------------------------------------------------------------


def test_columns_are_aligned() -> None:
    text = output.table(("a", "longer"), [("one", ""), ("x", "2")])
    assert text == "a    longer\none  -\nx    2"
    assert output.table(("a",), [], colour=True) == "\x1b[1ma\x1b[0m"
    rows = [("up", "up"), ("up", "reserved"), ("up", "odd")]
    assert output.table(("state", "name"), rows, colour=True).splitlines() == [
        "\x1b[1mstate  name\x1b[0m",
        "\x1b[32mup\x1b[0m     up",
        "\x1b[32mup\x1b[0m     reserved",
        "\x1b[32mup\x1b[0m     odd",
    ]
    assert output.table(("name", "state"), rows, colour=True).splitlines()[1:] == [
        "up    \x1b[32mup\x1b[0m",
        "up    \x1b[2mreserved\x1b[0m",
        "up    odd",
    ]


@pytest.mark.parametrize(("variable", "bold"), [("", True), ("1", False)])
def test_the_header_is_bold_on_a_terminal(variable: str, bold: bool) -> None:
    ours, theirs = pty.openpty()
    code = (
        f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); "
        "from libvirt_loopnet.commands.shared.output import print_table; print_table(['a'], [['b']])"
    )
    try:
        subprocess.run(
            [PYTHON, "-c", code], stdout=theirs, env={"NO_COLOR": variable}, timeout=60, check=True
        )
        assert (b"\x1b[1m" in os.read(ours, 100)) is bold
    finally:
        os.close(ours)
        os.close(theirs)


def test_steps_in_brief() -> None:
    steps = [
        Step(NFT, "add table x"),
        Step(NETLINK, "x"),
        Step(NFT, delete_tables()),
        Step(IP, "route add x"),
        Step(HOSTS, ""),
    ]
    assert list(drift.brief(steps)) == [
        "nft: tables loopnet (bridge, arp, ip) replaced",
        "nft: tables loopnet (bridge, arp, ip) deleted",
        "ip route add x",
        "# /etc/hosts: no names",
    ]


# --- who and where -------------------------------------------------------------------------------


def a_network(name: str = "loopnet", second: int = 1, domain: str = "") -> Network:
    return Network(
        name=name,
        uuid="",
        bridge=f"virbr{second}",
        bridge_mac="52:54:00:00:00:00",
        mode="mapped",
        loop_prefix=IPv4Network(f"127.{second}.0.0/24"),
        guest_prefix=IPv4Network("10.127.1.0/24"),
        gateway=1,
        host=254,
        domain=domain or name,
    )


LOOPNET, TWIN = a_network(), a_network("twin", 2, "two.example")
UUIDS = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(4)]


def an_entry(
    network: Network,
    number: int,
    name: str,
    guest: int,
    owner: str = "",
    gone: bool = False,
    off: bool = False,
) -> Entry:
    mac = f"52:54:00:00:0{network.loop_prefix.network_address.packed[1]}:{number:02x}"
    port = Port(network.name, mac, owner, UUIDS[guest]) if owner and not off else None
    kept = Reservation(number, mac, UUIDS[guest], name)
    return Entry(network.name, kept, None if gone else network, port, guest=owner)


ENTRIES = [
    an_entry(LOOPNET, 2, "vm1", 1, "vm1"),
    an_entry(LOOPNET, 3, "vm1-3", 1, "vm1"),
    an_entry(LOOPNET, 4, "vm-1", 2),
    an_entry(LOOPNET, 5, "vm-1-5", 3, "VM 1"),
    an_entry(LOOPNET, 6, "web-example", 0),
    an_entry(TWIN, 2, "vm1", 1),
    an_entry(LOOPNET, 8, "vm-1-8", 0, "vm_1", off=True),
    an_entry(TWIN, 7, "", 0, "☃"),
]


@pytest.mark.parametrize(
    ("who", "addresses"),
    [
        ("vm1", ["127.1.0.2", "127.1.0.3", "127.2.0.2"]),
        ("VM1", ["127.1.0.2", "127.1.0.3", "127.2.0.2"]),
        ("vm1-3", ["127.1.0.3"]),
        ("vm-1", ["127.1.0.4"]),
        ("VM 1", ["127.1.0.5"]),
        ("vm_1", ["127.1.0.8"]),
        ("vm1.loopnet", ["127.1.0.2", "127.1.0.3"]),
        ("vm1.two.example", ["127.2.0.2"]),
        ("vm1.twin", ["127.2.0.2"]),
        ("web.example", ["127.1.0.6"]),
        ("web.example.loopnet", ["127.1.0.6"]),
        ("☃", ["127.2.0.7"]),
        ("52:54:00:00:01:04", ["127.1.0.4"]),
        ("52:54:00:00:02:07", ["127.2.0.7"]),
        ("vm1.", ["127.1.0.2", "127.1.0.3", "127.2.0.2"]),
        (".loopnet", []),
        ("loopnet", []),
        ("vm", []),
        ("", []),
        ("!", []),
    ],
)
def test_find(who: str, addresses: list[str]) -> None:
    assert [str(entry.loop_address) for entry in find(ENTRIES, who)] == addresses


def test_a_guest_whose_network_is_gone_has_no_address() -> None:
    entry = an_entry(LOOPNET, 2, "vm1", 1, gone=True)
    assert find([entry], "vm1.loopnet") == [entry]
    assert (entry.loop_address, entry.guest_address, entry.state) == (None, None, "reserved")


@pytest.mark.parametrize(
    ("address", "mine", "network", "number"),
    [
        ("127.1.0.9", [], LOOPNET, 9),
        ("127.2.0.9", [], TWIN, 9),
        ("10.127.1.9", [ENTRIES[-1]], TWIN, 9),
        ("10.127.1.9", ENTRIES[2:3], LOOPNET, 9),
    ],
)
def test_place(address: str, mine: list[Entry], network: Network, number: int) -> None:
    found = reserve.place(IPv4Address(address), [LOOPNET, TWIN], mine)
    assert found == (network, number)


def test_no_place() -> None:
    with pytest.raises(InputError, match=r"10\.127\.1\.9 is in networks loopnet, twin; say which"):
        reserve.place(IPv4Address("10.127.1.9"), [LOOPNET, TWIN], [])
    with pytest.raises(InputError, match=r"127\.9\.0\.1 is in no loopnet network"):
        reserve.place(IPv4Address("127.9.0.1"), [LOOPNET, TWIN], [])


def test_define_takes_what_is_free() -> None:
    taken = [("a", IPv4Network("127.1.0.0/24")), ("b", IPv4Network("127.2.0.0/16"))]
    nothing = Asked(None, None, None, ipv6=Choice())
    chosen = define.choose("x", nothing, taken)
    assert (str(chosen.loop_prefix), str(chosen.guest_prefix)) == ("127.3.0.0/24", "10.127.3.0/24")
    native = define.choose("x", nothing._replace(mode="native"), taken)
    assert native.loop_prefix == native.guest_prefix == IPv4Network("127.3.0.0/24")
    wide = define.choose("x", nothing._replace(guest_prefix=IPv4Network("10.4.0.0/16")), taken)
    assert wide.loop_prefix == IPv4Network("127.3.0.0/16")
    with pytest.raises(ConflictError, match="overlaps"):
        define.choose("x", nothing._replace(loop_prefix=IPv4Network("127.2.9.0/24")), taken)


def test_define_gives_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(define, "global_id", lambda: bytes.fromhex("123456789a"))
    chosen = define.choose("x", Asked(None, None, None), [])
    assert chosen.ipv6 == ula_prefix(bytes.fromhex("123456789a"), chosen.loop_prefix)
    assert define.choose("x", Asked(None, None, None, ipv6=Choice()), []).ipv6 is None
    monkeypatch.setattr(define, "has_ipv6", lambda: False)
    assert define.choose("x", Asked(None, None, None), []).ipv6 is None


# --- inventory -----------------------------------------------------------------------------------

PORT = """<networkport><uuid>{uuid}</uuid><owner><name>vm1</name><uuid>{uuid}</uuid></owner>
<mac address='52:54:00:00:00:05'/></networkport>"""


TAP = Tap("vnet0", "virbr1", "vm1 127.1.0.5", "fe:54:00:00:00:05")
LET_IN = Admitted(frozenset({("vnet0", "52:54:00:00:00:05")}))


@pytest.mark.parametrize(
    ("taps", "plugged", "let_in", "state"),
    [
        ([TAP], True, LET_IN, "up"),
        ([TAP], True, Admitted(), "off"),
        ([TAP], True, None, "up"),  # not root
        ([TAP], False, None, "off"),
        ([TAP], False, LET_IN, "off"),
        ([], True, LET_IN, "off"),
    ],
)
def test_inventory_of_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    taps: list[Tap],
    plugged: bool,
    let_in: Admitted | None,
    state: str,
) -> None:
    monkeypatch.setattr(linux.Linux, "taps", lambda _self, _bridges: taps)
    monkeypatch.setattr(bridge_ports, "is_plugged", lambda tap, bridge: plugged and (tap, bridge) == TAP[:2])
    monkeypatch.setattr(admitted, "admitted", lambda: let_in)
    monkeypatch.setattr("libvirt_loopnet.daemon.runstate.NOTES", str(tmp_path / "notes"))
    template = (CHECKOUT / "xml-templates" / "loopnet.xml").read_bytes()
    run, definitions = tmp_path / "run", tmp_path / "definitions"
    ports = run / "loopnet" / "ports"
    ports.mkdir(parents=True)
    definitions.mkdir()
    (run / "loopnet.xml").write_bytes(template.replace(b"<forward", b"<bridge name='virbr1'/><forward", 1))
    (ports / "x.xml").write_text(PORT.format(uuid=UUIDS[1]))
    (definitions / "loopnet.xml").write_bytes(template)
    (definitions / "other.xml").write_bytes(
        template.replace(b"<name>loopnet<", b"<name>other<").replace(b"127.1.", b"127.2.")
    )
    (definitions / "plain.xml").write_text("<network><name>plain</name></network>")
    guests = tmp_path / "guests"
    (guests / "qemu").mkdir(parents=True)
    guest = (
        "<!-- by virsh edit -->\n<domain type='kvm'><name>a&amp;b &lt;ä&gt;</name><uuid>{}</uuid></domain>"
    )
    (guests / "qemu" / "a&b <ä>.xml").write_text(guest.format(UUIDS[2]))
    (guests / "qemu" / "broken.xml").write_text("<domain")
    (guests / "qemu" / "vm1.xml").write_text(guest.format(UUIDS[1]))  # its definition has a new name
    found = inventory.networks_of_files(str(run), str(definitions), str(guests))
    assert [network.name for network in found.active] == ["loopnet"]
    assert [network.name for network in found.inactive] == ["other"]
    store = Store(str(tmp_path / "store"))
    five, six = "52:54:00:00:00:05", "52:54:00:00:00:06"
    with store.locked():
        store.save("loopnet", [Reservation(5, five, UUIDS[1], "vm1")])
        store.save("other", [Reservation(6, six, UUIDS[2], "a-b")])
        store.save("undefined", [Reservation(7, six, "", "vm7")])
    rows = [
        (e.network_name, e.reservation.mac, str(e.loop_address), e.state, e.guest, e.dns_name)
        for e in inventory.entries(found, store)
    ]
    assert rows == [
        ("loopnet", five, "127.1.0.5", state, "vm1", "vm1.loopnet"),
        ("other", six, "127.2.0.6", "reserved", "a&b <ä>", "a-b.loopnet"),
        ("undefined", six, "None", "reserved", "", ""),
    ]


LISTING = """\
table bridge loopnet {
\tmap bound {
\t\ttype ifname . ether_addr : verdict
\t\telements = { "vnet0" . 52:54:00:00:00:05 : goto from-127.1.0.0,
\t\t\t     "vnet1" . 52:54:00:00:00:06 : goto from-127.1.0.0 }
\t}

\tset bound-macs {
\t\ttype ether_addr
\t\telements = { 52:54:00:00:00:05, 52:54:00:00:00:06 }
\t}

\tset macs {
\t\ttype ether_addr
\t\telements = { 52:54:00:00:00:05, 52:54:00:00:00:06,
\t\t\t     52:54:00:00:00:07 }
\t}
}
"""


def test_who_is_let_in() -> None:
    found = admitted.parse(LISTING)
    assert found.lets_in("vnet0", "52:54:00:00:00:05")
    assert not found.lets_in("vnet1", "52:54:00:00:00:05")  # bound to another tap
    assert found.lets_in("vnet9", "52:54:00:00:00:07")  # unbound
    assert not found.lets_in("vnet9", "52:54:00:00:00:08")
    assert admitted.parse("") == Admitted()


# --- hooks ---------------------------------------------------------------------------------------


def test_hooks_are_installed_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path)
    assert [hookfiles.state(driver, root) for driver in hookfiles.DRIVERS] == ["missing"] * 2
    assert cli.main(["install-hooks", "--root", root]) == 0
    said = capsys.readouterr().out
    for driver in hookfiles.DRIVERS:
        file = tmp_path / "etc/libvirt/hooks" / f"{driver}.d" / "50-loopnet"
        assert f"installed {file}\n" in said
        assert stat.S_IMODE(file.stat().st_mode) == 0o755
        assert not file.is_symlink()
        text = file.read_text()
        assert f"\npackage={CHECKOUT}\n" in text
        source = (CHECKOUT / "hooks" / driver).read_text()
        assert text.replace(f"package={CHECKOUT}", "package=@PACKAGE@") == source
        assert hookfiles.state(driver, root) == "installed"
    assert cli.main(["install-hooks", "--root", root]) == 0
    assert "nothing to do\n" in capsys.readouterr().out
    assert cli.main(["uninstall-hooks", "--root", root]) == 0
    assert capsys.readouterr().out.count("removed ") == 2
    assert not list((tmp_path / "etc/libvirt/hooks").iterdir())
    assert cli.main(["uninstall-hooks", "--root", root]) == 0
    assert capsys.readouterr().out == "nothing to do\n"


@pytest.mark.parametrize("verb", ["install-hooks", "uninstall-hooks"])
def test_hooks_of_others_are_left_alone(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "etc/libvirt/hooks/qemu.d/50-loopnet"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("#!/bin/sh\necho mine\n")
    assert cli.main([verb, "--root", str(tmp_path)]) == 2
    assert "50-loopnet is not libvirt-loopnet's; rename it" in capsys.readouterr().err
    assert foreign.read_text() == "#!/bin/sh\necho mine\n"
    assert not (tmp_path / "etc/libvirt/hooks/network.d").exists()
    assert hookfiles.state("qemu", str(tmp_path)) == "foreign"


def test_a_hook_can_be_out_of_order(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert cli.main(["install-hooks", "--root", root]) == 0
    file = Path(hookfiles.path("qemu", root))
    file.chmod(0o644)
    assert hookfiles.state("qemu", root) == "dead"
    file.chmod(0o755)
    file.write_text(file.read_text().replace(f"package={CHECKOUT}", "package='/no where'"))
    assert hookfiles.state("qemu", root) == "dead"
    assert cli.main(["install-hooks", "--root", root]) == 0
    assert hookfiles.state("qemu", root) == "installed"


def test_a_package_in_an_odd_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "it's here"
    (package / "libvirt_loopnet").mkdir(parents=True)
    (package / "libvirt_loopnet" / "hook.py").touch()
    monkeypatch.setattr(hookfiles, "PACKAGE", str(package))
    data = hookfiles.text(str(CHECKOUT / "hooks"), "network")
    hookfiles.install("network", data, str(tmp_path))
    assert hookfiles.state("network", str(tmp_path)) == "installed"
    hook = tmp_path / "etc/libvirt/hooks/network.d/50-loopnet"
    done = subprocess.run([str(hook), "x", "begin"], capture_output=True, timeout=60, check=False, cwd="/")
    assert done.returncode == 0, done.stderr


def test_hooks_that_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hookfiles, "PACKAGE", str(tmp_path))
    monkeypatch.setattr(hookfiles, "places", lambda: [str(tmp_path / "hooks")])
    with pytest.raises(HostError, match="reinstall libvirt-loopnet"):
        hookfiles.sources()


# --- reserve and release -------------------------------------------------------------------------


@pytest.mark.skipif(not ROOT, reason="needs root")
@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["reserve", "vm1", "x"], 2, "'x' is not an IPv4 address"),
        (["reserve", "vm1", "127.250.250.5"], 2, "127.250.250.5 is in no loopnet network"),
        (["release"], 2, "name one guest, or give --dead"),
        (["release", "x", "--dead"], 2, "name one guest, or give --dead"),
        (["release", "no-such-guest"], 1, "no guest 'no-such-guest' has a reservation"),
        (["ip", "no-such-guest"], 1, "no guest 'no-such-guest' has an address"),
    ],
)
def test_who_and_what_is_unknown(
    arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == status
    out, errors = capsys.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    assert says in errors


def test_release_names_what_it_releases() -> None:
    assert release.line(ENTRIES[0]) == "127.1.0.2 of vm1 in network loopnet"
    gone = an_entry(LOOPNET, 2, "", 1, gone=True)
    assert release.line(gone) == f"host number 2 of {gone.reservation.mac} in network loopnet"


def test_json_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = inventory.Networks((), (), ())
    monkeypatch.setattr("libvirt_loopnet.commands.list.networks", lambda _uri: nothing)
    monkeypatch.setattr("libvirt_loopnet.commands.list.Store", lambda: Store(str(tmp_path)))
    assert cli.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_every_error_has_a_documented_status() -> None:
    def all_errors(kind: type[LoopnetError]) -> set[type[LoopnetError]]:
        return {kind}.union(*(all_errors(each) for each in kind.__subclasses__()))

    assert {kind.status for kind in all_errors(LoopnetError)} == {1, 2, 4, 5}
    assert cli.__doc__ is not None
    for status in (0, 1, 2, 4, 5, cli.INTERRUPTED):
        assert f"\n{status} " in cli.__doc__
    assert sys.version_info >= (3, 9)
