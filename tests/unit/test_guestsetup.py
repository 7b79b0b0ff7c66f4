"""What guest-setup prints, and what it does to a domain's definition."""

from __future__ import annotations

import base64
import configparser
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml

from libvirt_loopnet import cli
from libvirt_loopnet.commands import guest_setup
from libvirt_loopnet.commands.guest_setup import choose
from libvirt_loopnet.commands.shared.inventory import Networks
from libvirt_loopnet.errors import ConflictError, InputError, LoopnetError, NotFoundError
from libvirt_loopnet.guests import setup, smbios
from libvirt_loopnet.model import Network
from libvirt_loopnet.networks.new import new_network
from libvirt_loopnet.networks.parsing import parse_network
from libvirt_loopnet.xml.document import alike
from libvirt_loopnet.xml.tree import parse

PREFIX = IPv4Network("127.2.0.0/24")
MAC = "52:54:00:00:00:05"


def network(name: str, loop: str, mode: str) -> Network:
    prefix = IPv4Network(loop)
    guest = prefix if mode == "native" else IPv4Network("10.9.0.0/24")
    found = parse_network(new_network(name, prefix, guest, mode))
    assert found
    return found


NATIVE = network("deep", "127.2.0.0/24", "native")
OTHER = network("deeper", "127.3.0.0/24", "native")
MAPPED = network("flat", "127.1.0.0/24", "mapped")


# --- texts ---------------------------------------------------------------------------------------


def test_networkd() -> None:
    text = setup.networkd("deep", PREFIX)
    parser = configparser.ConfigParser(comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    assert {name: dict(parser[name]) for name in parser.sections()} == {
        "Match": {"Type": "ether"},
        "Network": {"DHCP": "ipv4", "IPv4RouteLocalnet": "yes"},
        "Route": {"Destination": "127.2.0.0/24", "Scope": "link", "Table": "local", "Type": "unicast"},
    }
    assert f"[Match]\nMACAddress={MAC}\n" in setup.networkd("deep", PREFIX, MAC)


def test_sysctl() -> None:
    settings = [line for line in setup.sysctl().splitlines() if not line.startswith("#")]
    assert settings == ["net.ipv4.conf.all.route_localnet = 1"]


def test_cloud_init() -> None:
    text = setup.cloud_init()
    assert text.startswith("#cloud-config\n")
    data = yaml.safe_load(text)
    assert list(data) == ["bootcmd", "write_files", "runcmd"]
    assert data["bootcmd"] == [["sysctl", "-q", "-w", "net.ipv4.conf.all.route_localnet=1"]]
    written = {file["path"]: (file["permissions"], file["content"]) for file in data["write_files"]}
    script = "/usr/local/sbin/loopnet-guest"
    assert written == {
        "/etc/sysctl.d/50-loopnet.conf": ("0644", setup.sysctl()),
        script: ("0755", setup.service_script()),
        "/etc/systemd/system/loopnet-guest.service": ("0644", setup.service(script)),
    }
    assert ["systemctl", "enable", "--now", "loopnet-guest.service"] in data["runcmd"]


@pytest.mark.parametrize(
    "text",
    [setup.hook("networkmanager"), setup.hook("ifupdown"), setup.service_script()],
    ids=["networkmanager", "ifupdown", "service"],
)
def test_scripts_are_shell(text: str) -> None:
    for shell in ("dash", "bash"):
        done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_only_networkmanagers_hook_asks_for_the_sysctl_file_too() -> None:
    """NetworkManager connects a socket from the address before it accepts the lease, and that is before any hook."""
    assert "--format sysctl" in setup.hook("networkmanager")
    assert "--format sysctl" not in setup.hook("ifupdown")


def test_unit_is_taken_by_systemd(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(setup.service_script())
    unit = tmp_path / "loopnet-guest.service"
    unit.write_text(setup.service(str(script)))
    known = subprocess.run(["systemd-analyze", "--help"], capture_output=True, text=True, check=True).stdout
    # from systemd 250 on
    alone = ["--recursive-errors=no"] if "--recursive-errors" in known else []
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *alone, str(unit)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_credentials() -> None:
    strings = setup.credentials([("deep", PREFIX, MAC)])
    assert strings[0] == "io.systemd.credential:sysctl.extra=net.ipv4.conf.all.route_localnet=1"
    key, _, value = strings[1].partition("=")
    assert key == "io.systemd.credential.binary:network.network.05-deep-525400000005"
    assert base64.b64decode(value).decode() == setup.networkd("deep", PREFIX, MAC)


# --- definitions ---------------------------------------------------------------------------------

STRINGS = ["io.systemd.credential:sysctl.extra=net.ipv4.conf.all.route_localnet=1", "io.systemd.x:y=a&b"]
PLAIN = b"""\
<domain type='kvm' xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>vm1</name><!-- mine -->
  <os>
    <type arch="x86_64">hvm</type>
  </os>
  <devices/>
</domain>
"""
ADDED = b"""\
<domain type='kvm' xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>vm1</name><!-- mine -->
  <os>
    <type arch="x86_64">hvm</type>
    <smbios mode='sysinfo'/>
  </os>
  <devices/>
  <sysinfo type='smbios'>
    <oemStrings>
      <entry>io.systemd.credential:sysctl.extra=net.ipv4.conf.all.route_localnet=1</entry>
      <entry>io.systemd.x:y=a&amp;b</entry>
    </oemStrings>
  </sysinfo>
</domain>
"""


def entries(xml: bytes) -> list[str]:
    info = parse(xml).find("sysinfo")
    assert info
    oem = info.find("oemStrings")
    assert oem
    return [entry.text for entry in oem.findall("entry")]


def test_added_to_a_definition() -> None:
    assert smbios.add(PLAIN, STRINGS).decode() == alike(ADDED)


def test_adding_again_changes_nothing() -> None:
    assert smbios.add(ADDED, STRINGS) == ADDED


def test_a_new_value_takes_the_place_of_the_old() -> None:
    changed = smbios.add(ADDED, [STRINGS[0], "io.systemd.x:y=c", "io.systemd.x:z=d"])
    assert entries(changed) == [STRINGS[0], "io.systemd.x:y=c", "io.systemd.x:z=d"]


def test_what_is_there_stays() -> None:
    others = b"<sysinfo type='smbios'><system><entry name='serial'>7</entry></system></sysinfo>"
    xml = PLAIN.replace(b"  <devices/>\n", b"  <devices/>\n  " + others + b"\n")
    changed = smbios.add(xml, STRINGS)
    assert entries(changed) == STRINGS
    assert b'<entry name="serial">7</entry>' in changed
    mine = ADDED.replace(STRINGS[0].encode(), b"mine")
    assert entries(smbios.add(mine, STRINGS)) == ["mine", STRINGS[1], STRINGS[0]]


def test_the_mode_of_the_smbios() -> None:
    emulate = PLAIN.replace(b"</type>\n", b"</type>\n    <smbios mode='emulate'/>\n")
    assert smbios.add(emulate, STRINGS).decode() == alike(ADDED)
    with pytest.raises(ConflictError, match="mode='host'"):
        smbios.add(emulate.replace(b"emulate", b"host"), STRINGS)


def test_a_foreign_sysctl_extra_is_not_overwritten() -> None:
    foreign = ADDED.replace(b"net.ipv4.conf.all.route_localnet=1", b"vm.swappiness=1")
    with pytest.raises(ConflictError, match=r"has the credential sysctl\.extra already"):
        smbios.add(foreign, STRINGS)
    both = foreign.replace(b"vm.swappiness=1", b"vm.swappiness=1\nnet.ipv4.conf.all.route_localnet=1")
    assert smbios.add(both, STRINGS) == both


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        (b"<network/>", "expected <domain>, got <network>"),
        (PLAIN.replace(b">hvm<", b">exe<"), "not a virtual machine"),
        (b"<domain><name>vm1</name></domain>", "not a virtual machine"),
        (b"<domain>", "not well-formed"),
    ],
)
def test_what_has_no_smbios(xml: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        smbios.add(xml, STRINGS)


@pytest.mark.parametrize("xml", [PLAIN, b"<domain><name>a</name><os><type>hvm</type></os></domain>"])
def test_the_fragment_is_what_is_added(xml: bytes) -> None:
    wrapped = f"<domain>{smbios.fragment(STRINGS)}</domain>".encode()
    assert entries(wrapped) == entries(smbios.add(xml, STRINGS)) == STRINGS


# --- the command ---------------------------------------------------------------------------------


def run(
    monkeypatch: pytest.MonkeyPatch, known: Sequence[Network], capsys: pytest.CaptureFixture[str], *argv: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(guest_setup, "networks", lambda _uri: Networks((), tuple(known), ()))
    status = cli.main(["guest-setup", *argv])
    out, errors = capsys.readouterr()
    return status, out, errors


def test_every_format_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    texts = set()
    for kind in setup.FORMATS:
        status, out, errors = run(monkeypatch, [NATIVE, MAPPED], capsys, "--format", kind)
        assert (status, errors) == (0, "")
        assert out.endswith("\n")
        assert not out.endswith("\n\n")
        assert max(map(len, out.splitlines())) <= 120 or kind == "smbios"
        texts.add(out)
    assert len(texts) == len(setup.FORMATS)


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        ([], 2, "the following arguments are required: --format"),
        (["--format", "netplan"], 2, "invalid choice: 'netplan'"),
        (["--format", "sysctl", "--mac", MAC], 2, "--mac goes with --format networkd or smbios"),
        (["--format", "networkd", "--mac", "52:54"], 2, "is not a MAC address"),
        (["--format", "networkd", "--domain", "vm1"], 2, "--domain goes with --format smbios"),
        (["--format", "smbios", "--domain", "vm1", "--mac", MAC], 2, "exclude each other"),
        (["--format", "networkd", "none"], 1, "there is no loopnet network 'none'"),
        (["--format", "sysctl", "flat"], 2, "network flat is mapped"),
    ],
)
def test_wrong_arguments(
    argv: list[str],
    status: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    got, out, errors = run(monkeypatch, [NATIVE, MAPPED], capsys, *argv)
    assert (got, out) == (status, "")
    assert says in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("known", "error", "says"),
    [
        ([], NotFoundError, "there is no native network"),
        ([MAPPED], NotFoundError, "there is no native network"),
        ([NATIVE, OTHER], InputError, "name one of deep, deeper"),
    ],
)
def test_no_network_to_choose(known: list[Network], error: type[LoopnetError], says: str) -> None:
    with pytest.raises(error, match=says):
        choose(tuple(known), "")


def test_the_only_native_network_is_chosen() -> None:
    assert choose((MAPPED, NATIVE), "") is NATIVE
    assert choose((MAPPED, NATIVE, OTHER), "deeper") is OTHER
