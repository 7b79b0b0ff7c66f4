"""libvirt's network XML -> Network, Port, Reservation."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from libvirt_loopnet.errors import InputError
from libvirt_loopnet.model import Network, Port, Reservation
from libvirt_loopnet.networks.dhcp import Static, static_in
from libvirt_loopnet.networks.dnsmasq_options import lease_option, tftp_options
from libvirt_loopnet.networks.parsing import (
    definition_of,
    dnsmasq_options,
    hosts_of,
    missing_options,
    parse_hook,
    parse_network,
    parse_port,
)
from libvirt_loopnet.validation import check_name

ROOT = Path(__file__).parents[2]
UUID = "a2a3a4a5-0000-1111-2222-333344445555"
OWN = (
    "<loopnet:network xmlns:loopnet='https://libvirt-loopnet.org/xml/network/1' mode='mapped' "
    "guest-prefix='192.168.122.0/24' gateway='1'/>"
)
PORT = f"""<networkport>
  <uuid>{UUID}</uuid>
  <owner><name>vm 1</name><uuid>b{UUID[1:]}</uuid></owner>
  <mac address='52:54:00:AB:CD:EF'/>
  <plug type='network' bridge='virbr1'/>
</networkport>"""
IP = "<ip address='127.1.0.254' netmask='255.255.255.0'/>"


def xml(own: str = OWN, ip: str = IP, name: str = "net", more: str = "", forward: str = "open") -> bytes:
    return f"""<network connections='1'>
  <name>{name}</name>
  <uuid>{UUID}</uuid>
  <metadata><other xmlns='urn:other'/>{own}</metadata>
  <forward mode='{forward}'/>
  <bridge name='virbr1' stp='on' delay='0'/>
  <mac address='52:54:00:00:00:0A'/>
  {more}
  {ip}
</network>""".encode()


EXPECTED = Network(
    name="net",
    uuid=UUID,
    bridge="virbr1",
    bridge_mac="52:54:00:00:00:0a",
    mode="mapped",
    loop_prefix=IPv4Network("127.1.0.0/24"),
    guest_prefix=IPv4Network("192.168.122.0/24"),
    gateway=1,
    host=254,
    domain="net",
)


def test_network() -> None:
    assert parse_network(xml()) == EXPECTED


def test_status_file() -> None:
    status = b"<networkstatus><class_id bitmap='0-2'/>" + xml() + b"</networkstatus>"
    assert parse_network(status) == EXPECTED


def test_not_ours() -> None:
    assert parse_network(xml(own="")) is None
    assert parse_network(b"<network/>") is None
    assert parse_network(xml(own="")) is None


def test_hook() -> None:
    data = b"<hookData>" + xml() + PORT.encode() + b"</hookData>"
    assert parse_hook(data)[1:] == (EXPECTED, Port("net", "52:54:00:ab:cd:ef", "vm 1", "b" + UUID[1:], UUID))
    assert parse_hook(b"<hookData>" + xml() + b"</hookData>")[1:] == (EXPECTED, None)
    assert parse_hook(b"<hookData>" + xml(own="") + b"</hookData>")[1:] == (None, None)


def test_port_file() -> None:
    declaration = b"<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n"
    assert parse_port("n", declaration + PORT.encode()).mac == "52:54:00:ab:cd:ef"


@pytest.mark.parametrize(
    ("own", "ip", "expected"),
    [
        ("", "<ip address='127.9.0.254' prefix='24'/>", "mapped 127.9.0.0/24 10.127.9.0/24 1 254"),
        ("mode='native'", "<ip address='127.2.0.9' prefix='24'/>", "native 127.2.0.0/24 127.2.0.0/24 1 9"),
        (
            "gateway='7'",
            "<ip family='ipv4' address='127.4.3.2' prefix='16'/>",
            "mapped 127.4.0.0/16 10.4.0.0/16 7 770",
        ),
        ("", "<ip address='127.128.0.1' prefix='9'/>", None),
        ("", "<ip address='127.1.0.6' netmask='255.255.255.248'/>", "mapped 127.1.0.0/29 10.127.1.0/29 1 6"),
        (
            "guest-prefix='10.0.0.0/9' gateway='2'",
            "<ip address='127.128.0.1' prefix='9'/>",
            "mapped 127.128.0.0/9 10.0.0.0/9 2 1",
        ),
    ],
)
def test_defaults(own: str, ip: str, expected: str | None) -> None:
    element = f"<l:network xmlns:l='https://libvirt-loopnet.org/xml/network/1' {own}/>"
    if expected is None:
        with pytest.raises(InputError, match="the gateway and the host both have number 1"):
            parse_network(xml(own=element, ip=ip))
        return
    net = parse_network(xml(own=element, ip=ip))
    assert net
    assert f"{net.mode} {net.loop_prefix} {net.guest_prefix} {net.gateway} {net.host}" == expected


def test_incomplete_definition_and_bridge_template() -> None:
    bare = xml().replace(b"<bridge name='virbr1' ", b"<bridge name='lo%d' ").replace(UUID.encode(), b"")
    net = parse_network(bare.replace(b"<mac address='52:54:00:00:00:0A'/>", b""))
    assert net
    assert (net.uuid, net.bridge, net.bridge_mac) == ("", "", "")


@pytest.mark.parametrize(
    ("name", "domain", "expected"),
    [
        ("My_Net", "", "my-net"),
        ("+", "", None),
        ("a", "x.Example", "x.Example"),
        ("ä", "", "xn--4ca"),
        ("_", "", None),
    ],
)
def test_domain(name: str, domain: str, expected: str | None) -> None:
    more = f"<domain name='{domain}' localOnly='yes'/>" if domain else ""
    if expected is None:
        with pytest.raises(InputError):
            parse_network(xml(name=name))
        return
    net = parse_network(xml(name=name, more=more))
    assert net
    assert net.domain == expected


def attribute(text: str) -> str:
    return OWN.replace("gateway='1'", text)


BAD = {
    "unknown attribute": (xml(own=attribute("gatway='1'")), "gatway"),
    "unknown mode": (xml(own=OWN.replace("mapped", "magic")), "magic"),
    "unknown child": (xml(own=OWN[:-2] + "><loopnet:guest/></loopnet:network>"), "guest"),
    "unknown element": (xml(own=OWN.replace(":network", ":net")), "one <loopnet:network>"),
    "two of ours": (xml(own=OWN + OWN), "one <loopnet:network>"),
    "gateway 0": (xml(own=attribute("gateway='0'")), "'0' must be from 1 to 254"),
    "gateway 255": (xml(own=attribute("gateway='255'")), "'255' must be"),
    "gateway an address": (xml(own=attribute("gateway='10.1.1.1'")), "'10.1.1.1' must be"),
    "gateway a digit elsewhere": (xml(own=attribute("gateway='²'")), "must be"),
    "gateway huge": (xml(own=attribute("gateway='" + "9" * 5000 + "'")), "must be"),
    "gateway and host": (xml(own=attribute("gateway='254'")), "both have number 254"),
    "guest prefix length": (xml(own=OWN.replace("122.0/24", "122.0/25")), "differ in length"),
    "guest prefix no prefix": (xml(own=OWN.replace("122.0/24", "122.0")), "no length"),
    "guest prefix host bits": (xml(own=OWN.replace("122.0/24", "122.1/24")), "host bits"),
    "guest prefix in 127": (xml(own=OWN.replace("192.168.122", "127.3.0")), "127.0.0.0/8"),
    "native with another prefix": (xml(own=OWN.replace("mapped", "native")), "native"),
    "outside 127/8": (xml(ip="<ip address='10.1.0.254' prefix='24'/>"), "outside 127.0.0.0/8"),
    "inside 127.0/16": (xml(ip="<ip address='127.0.5.254' prefix='24'/>"), "127.0.0.0/16"),
    "too long": (xml(ip="<ip address='127.1.0.1' prefix='30'/>"), "from /9 to /29"),
    "too short": (xml(ip="<ip address='127.1.0.1' prefix='8'/>"), "127.0.0.0/16"),
    "no prefix is class A": (xml(ip="<ip address='127.1.0.1'/>"), "127.0.0.0/16"),
    "prefix no number": (xml(ip="<ip address='127.1.0.1' prefix='x'/>"), "not an IPv4 address with"),
    "netmask with holes": (xml(ip="<ip address='127.1.0.1' netmask='255.0.255.0'/>"), "not an IPv4"),
    "wildcard mask": (xml(ip="<ip address='127.1.0.1' netmask='0.0.0.255'/>"), "not an IPv4 address"),
    "network address": (xml(ip="<ip address='127.1.0.0' prefix='24'/>"), "host number '0'"),
    "broadcast address": (xml(ip="<ip address='127.1.0.255' prefix='24'/>"), "host number '255'"),
    "no ip": (xml(ip=""), "has 0 IPv4"),
    "two ips": (xml(ip=IP + IP), "has 2 IPv4"),
    "ipv6 only": (xml(ip="<ip family='ipv6' address='fd00::1' prefix='64'/>"), "has 0 IPv4"),
    "nat": (xml(forward="nat"), "'nat'; see:"),
    "no forward": (xml().replace(b"<forward mode='open'/>", b""), "not none"),
    "bridge name": (xml().replace(b"virbr1", b"x" * 16), "15 bytes"),
    "bridge name in bytes": (xml().replace(b"virbr1", "ü".encode() * 8), "15 bytes"),
    "bridge name with a slash": (xml().replace(b"virbr1", b"a/b"), "device's name"),
    "bridge MAC": (xml().replace(b"52:54:00:00:00:0A", b"52:54:00:00:0A"), "not a MAC address"),
    "UUID": (xml().replace(UUID.encode(), b"1234"), "not a UUID"),
    "no name": (xml(name=""), "rename"),
    "name with a slash": (xml(name="../etc"), "rename"),
    "name with a comma": (xml(name="a,b"), "rename"),
    "name with a line break": (xml(name="a\nb"), "rename"),
    "long name": (xml(name="n" * 300), "rename"),
    "domain": (xml(more="<domain name='a b'/>"), "not a DNS domain"),
    "domain with an empty label": (xml(more="<domain name='a..b'/>"), "not a DNS domain"),
    "wrong root": (b"<domain/>", "got <domain>"),
    "wrong root with a long name": (b"<" + b"x" * 9999 + b"/>", "got <xxx"),
    "empty status": (b"<networkstatus/>", "got <networkstatus>"),
}


@pytest.mark.parametrize(("data", "says"), BAD.values(), ids=BAD.keys())
def test_bad_network_is_one_line(data: bytes, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_network(data)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "data",
    [
        b"<network/>",
        b"<hookData/>",
        b"<hookData><domain/></hookData>",
        b"<hookData>" + xml() + b"<networkport/></hookData>",
        b"<hookData>" + xml() + PORT.replace("52:", "").encode() + b"</hookData>",
        b"<hookData>" + xml() + PORT.replace(f"b{UUID[1:]}", "").encode() + b"</hookData>",
    ],
)
def test_bad_hook_data(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_hook(data)


def test_a_host_of_a_live_network_asks_for_its_number() -> None:
    host = "<dhcp><host mac='52:54:0:0:0:aa' ip='127.1.0.7'/></dhcp>"
    data = xml(ip=IP[:-2] + f">{host}</ip>")
    assert static_in(data, EXPECTED).number("52:54:00:00:00:aa") == 7
    assert static_in(xml(), EXPECTED) == static_in(b"", EXPECTED) == Static()


def test_a_name_leaves_room_for_a_suffix_in_a_file_name() -> None:
    assert check_name("n" * 200) == "n" * 200
    with pytest.raises(InputError):
        check_name("n" * 201)


def test_declared_hosts() -> None:
    host = "<loopnet:host number='5' mac='52:54:00:00:00:AA' name='Web.1'/><loopnet:host number='6'/>"
    data = xml(own=OWN[:-2] + f">{host}</loopnet:network>")
    assert hosts_of(definition_of(data), EXPECTED) == (
        Reservation(5, "52:54:00:00:00:aa", "", "web-1"),
        Reservation(6, "", "", ""),
    )


@pytest.mark.parametrize(
    "host", ["number='1'", "number='254'", "number='0'", "", "number='5' ip='1'", "number='5' mac='x'"]
)
def test_bad_declared_host(host: str) -> None:
    data = xml(own=OWN[:-2] + f"><loopnet:host {host}/></loopnet:network>")
    with pytest.raises(InputError):
        hosts_of(definition_of(data), EXPECTED)


def test_missing_options() -> None:
    wanted = dnsmasq_options(EXPECTED)
    assert missing_options(definition_of(xml()), EXPECTED) == wanted
    some = "".join(f"<d:option value='{option}'/>" for option in wanted[1:])
    more = f"<d:options xmlns:d='http://libvirt.org/schemas/network/dnsmasq/1.0'>{some}</d:options>"
    assert missing_options(definition_of(xml(more=more)), EXPECTED) == wanted[:1]
    assert (
        missing_options(definition_of(b"<hookData>" + xml(more=more) + b"</hookData>"), EXPECTED)
        == wanted[:1]
    )


@pytest.mark.parametrize("mode", ["mapped", "native"])
def test_dnsmasq_takes_the_options(mode: str, tmp_path: Path) -> None:
    guest = EXPECTED.loop_prefix if mode == "native" else EXPECTED.guest_prefix
    config = tmp_path / "conf"
    options = dnsmasq_options(EXPECTED._replace(mode=mode, guest_prefix=guest))
    # what libvirt writes itself must not make a keyword of ours a repeated one
    libvirt = ("strict-order", "dhcp-no-override", "dhcp-authoritative", "dhcp-lease-max=9", "addn-hosts=/x")
    # a hook writes the file that is named here, before dnsmasq starts
    script = tmp_path / "script"
    script.write_text("dhcp-script=/bin/true\n")
    config.write_text(
        "\n".join((*libvirt, *options, "")).replace(lease_option(EXPECTED.name)[10:], str(script))
    )
    done = subprocess.run(["dnsmasq", "--test", "-C", config], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def imported(module: str) -> set[str]:
    """What a hook imports that imports ``module``."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; print(*sys.modules)"
    argv = ["/usr/bin/python3", "-I", "-S", "-c", code]
    return {*subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()}


HEAVY = {
    "argparse", "dataclasses", "enum", "json", "libvirt", "logging", "lxml", "pyroute2", "re", "socket",
    "subprocess", "tempfile", "typing", "xml",
}  # fmt: skip


@pytest.mark.parametrize("module", ["events.networks", "events.guests"])
def test_imports_are_cheap(module: str) -> None:
    """The hooks' path: what costs as much as Python itself stays out."""
    assert imported(f"libvirt_loopnet.{module}").isdisjoint(HEAVY)


def test_guests_events_import_no_plans() -> None:
    assert "libvirt_loopnet.planning.plan" not in imported("libvirt_loopnet.events.guests")


def tftp(root: str) -> tuple[str, ...]:
    ip = IP.replace("/>", f"><tftp root='{root}'/></ip>")
    return tftp_options(definition_of(xml(ip=ip)))


def test_tftp() -> None:
    assert tftp_options(definition_of(xml())) == ()
    assert tftp("/srv/a b") == ("enable-tftp", "tftp-root=/srv/a b")
    assert tftp("/srv'/><tftp root='/ignored") == ("enable-tftp", "tftp-root=/srv")
    ipv6 = "<ip family='ipv6' address='fd00::1' prefix='64'><tftp root='ignored'/></ip>"
    assert tftp_options(definition_of(xml(ip=IP + ipv6))) == ()


@pytest.mark.parametrize("root", ["", "srv", "/srv&#10;dhcp-script=/bin/x", "/srv&#x2028;"])
def test_tftp_from_no_directory(root: str) -> None:
    """It goes into a file of lines."""
    with pytest.raises(InputError, match=r"network net: <tftp root=.*virsh net-edit") as told:
        tftp(root)
    assert "\n" not in str(told.value)
