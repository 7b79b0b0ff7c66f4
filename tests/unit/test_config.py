"""The configuration: libvirt's syntax, and nothing wrong in it passes in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libvirt_loopnet.config import load, parse
from libvirt_loopnet.errors import InputError
from libvirt_loopnet.model import Options

SHIPPED = Path(__file__).resolve().parents[2] / "packaging" / "libvirt-loopnet.conf"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", Options()),
        ("# only\n\n  # comments", Options()),
        ('lo = "keep"', Options(lo="keep")),
        ("lo=keep # why", Options(lo="keep")),
        ("names = 'off'\r\nlo = shrink\r\n", Options(names="off")),
        ("lease-addresses = guest", Options(lease_addresses="guest")),
        ('move = [ "a:b", "c d:e" ]', Options(move=(("a", "b"), ("c d", "e")))),
        (
            'move = [\n  "a:b",  # one\n\n  "c:d",\n]\nlo=keep',
            Options("keep", move=(("a", "b"), ("c", "d"))),
        ),
        ("move = [a:b, c:d]", Options(move=(("a", "b"), ("c", "d")))),
        ('move = "a:b  c:d"', Options(move=(("a", "b"), ("c", "d")))),
        ("move = a:b", Options(move=(("a", "b"),))),
        ("move = []", Options()),
        ('move = ""', Options()),
        (
            'open-firewalls = [ "inet mullvad", "ip  a_b-c.d" ]',
            Options(open_firewalls=("inet mullvad", "ip a_b-c.d")),
        ),
        ('open-firewalls = "inet mullvad"', Options(open_firewalls=("inet mullvad",))),
        ("open-firewalls = []", Options()),
        ('open-firewalls = ""', Options()),
        ('move = "é#x:b"', Options(move=(("é#x", "b"),))),
    ],
)
def test_good(text: str, options: Options) -> None:
    assert parse(text) == options


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("lo = no", 1, "lo can't be 'no'; it must be one of: shrink, keep"),
        ("\nnames = on", 2, "names can't be 'on'; it must be one of: hosts, off"),
        ("lease-addresses = off", 1, "lease-addresses can't be 'off'; it must be one of: loop, guest"),
        ('lo = ["keep"]', 1, "lo can't be ['keep']"),
        ('lo = ""', 1, "lo can't be ''"),
        ("lo = Keep", 1, "lo can't be 'Keep'"),
        ("Lo = keep", 1, "unknown setting 'Lo'; the settings are: lo, names, lease-addresses, move"),
        ("\n\nlow = keep", 3, "unknown setting 'low'"),
        ('"lo" = keep', 1, "unknown setting 'lo'"),
        ("= keep", 1, "unknown setting '='"),
        ("\ufefflo = keep", 1, "unknown setting"),
        ("lo = keep\nlo = keep", 2, "lo is set in line 1 already"),
        ("lo", 1, 'lo has no valid value; write lo = "shrink"'),
        ("lo =", 1, "lo has no valid value"),
        ("lo =\nkeep", 1, "lo has no valid value"),
        ("lo keep", 1, "lo has no valid value"),
        ("lo = =", 1, "lo has no valid value"),
        ("lo = keep shrink", 1, "'shrink' follows the value"),
        ('lo = keep names = "off"', 1, "'names' follows the value"),
        ("lo: keep", 1, "unknown setting 'lo:'"),
        ('lo = "keep', 1, '" is never closed'),
        ('open-firewalls = [ "mullvad" ]', 1, "open-firewalls can't be 'mullvad'; write a table of nft"),
        ('\nopen-firewalls = "arp x"', 2, "open-firewalls can't be 'arp x'"),
        ('open-firewalls = "ip6 filter"', 1, "a table of iptables"),
        ('open-firewalls = "ip6 loopnet"', 1, "our own table"),
        ('open-firewalls = [ "" ]', 1, "open-firewalls can't be ''"),
        ('open-firewalls = [ "inet x; flush ruleset" ]', 1, "open-firewalls can't be"),
        ('open-firewalls = [ "inet 1x" ]', 1, "open-firewalls can't be"),
        (
            'open-firewalls = [ "ip loopnet" ]',
            1,
            "open-firewalls can't be 'ip loopnet', which is our own table",
        ),
        ('open-firewalls = [ "ip  raw" ]', 1, "a table of iptables; leave it out"),
        ('open-firewalls = [ "ip x", "ip  x" ]', 1, "open-firewalls names 'ip x' twice"),
        ("open-firewalls = [ inet mullvad ]", 1, 'write open-firewalls = [ "inet mullvad" ]'),
        ("move = [ 'a:b'\nlo = keep", 1, 'write move = [ "default:loopnet" ]'),
        ("move = [ a:b c:d ]", 1, "move has no valid value"),
        ("move = [ , ]", 1, "move has no valid value"),
        ("move = [", 1, "move has no valid value"),
        ("move = a", 1, "move can't be 'a'"),
        ("move = a:", 1, "move can't be 'a:'"),
        ("move = :a", 1, "move can't be ':a'"),
        ("move = a:a", 1, "move can't be 'a:a'"),
        ("move = a:b:c", 1, "move can't be 'a:b:c'"),
        ('move = "a:b a:c"', 1, "move names 'a' twice"),
    ],
)
def test_bad(text: str, line: int, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, "/etc/x.conf")
    assert str(caught.value).startswith(f"/etc/x.conf:{line}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(st.sampled_from("lonamesmove =\"'[],#\n:xkp"), max_size=60))
@example("lo = 'keep\n'")
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    says = ""
    try:
        parse(text)
    except InputError as error:
        says = str(error)
    assert "\n" not in says


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load(str(tmp_path / "none.conf")) == Options()


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_bytes(b"lo = keep\n# \xe9\n")
    with pytest.raises(InputError) as caught:
        load(str(path))
    assert str(caught.value) == f"{path}:2: not UTF-8; save the file as UTF-8"


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path} can't be read: is a directory")


def test_the_shipped_file_says_the_defaults_and_each_line_works() -> None:
    text = SHIPPED.read_text()
    assert parse(text) == Options()
    settings = [line[1:] for line in text.splitlines() if line.startswith("#") and line[1] != " "]
    settings = [line for line in settings if "=" in line]
    expected = Options(move=(("default", "loopnet"),), open_firewalls=("inet mullvad",))
    assert parse("\n".join(settings)) == expected
    assert os.path.getsize(SHIPPED) < 2000
