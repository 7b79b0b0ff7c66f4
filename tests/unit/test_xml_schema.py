"""What libvirt's schema refuses is told with file, line, element and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_loopnet import cli
from libvirt_loopnet.errors import InputError
from libvirt_loopnet.xml.schema import DIRECTORY, check_schema

GOOD = """\
<network>
  <name>n</name>
  <forward mode='nat'/>
  <mac address='52:54:00:00:00:01'/>
  <ip address='10.0.0.1' prefix='24'>
    <dhcp>
      <range start='10.0.0.2' end='10.0.0.9'/>
    </dhcp>
  </ip>
</network>
"""
pytestmark = pytest.mark.skipif(
    not Path(DIRECTORY, "network.rng").exists(), reason="libvirt's schemas are not installed"
)
BAD = {
    (
        "mode='nat'",
        "mode='magic'",
    ): "line 3: <forward> can't have mode='magic'; expected bridge, hostdev, nat",
    # what follows differs: 9.0 has <dns>, 10.0 and 11.3 have <description>
    ("<forward", "<frward"): "line 3: <network> has no element <frward>; expected bandwidth, bridge, ",
    ("<dhcp>", "<dhcp>\n<lease/>"): "line 7: <dhcp> has no element <lease>; expected bootp, host, range",
    ("start=", "strt="): "line 7: <range> has no attribute 'strt'; expected end, start",
    ("10.0.0.9", "10.0.0.999"): "line 7: /network/ip/dhcp/range: a value is not allowed",
    ("52:54", "zz"): "line 4: /network/mac: a value is not allowed",
    ("prefix='24'", "prefix='x'"): "line 5: /network/ip: Invalid attribute prefix",
    ("  <name>n</name>\n", ""): "line 1: /network: Expecting an element name, got nothing",
}


def test_a_good_one() -> None:
    check_schema(GOOD.encode(), "network", "n.xml")


@pytest.mark.parametrize("change", BAD)
def test_the_line_and_what_was_expected(change: tuple[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        check_schema(GOOD.replace(*change).encode(), "network", "n.xml")
    assert str(caught.value).startswith(f"n.xml, {BAD[change]}")
    assert "\n" not in str(caught.value)


def test_without_schemas_nothing_is_checked(tmp_path: Path) -> None:
    check_schema(b"<network><x/></network>", "network", "n.xml", str(tmp_path))
    (tmp_path / "network.rng").write_text("<grammar")
    check_schema(b"<network><x/></network>", "network", "n.xml", str(tmp_path))


def test_rewrite_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "n.xml"
    path.write_text(GOOD.replace("start=", "strt="))
    assert cli.main(["rewrite", str(path)]) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.count("\n") == 1
    assert f"{path}, line 7: <range> has no attribute 'strt'; expected end, start" in errors
