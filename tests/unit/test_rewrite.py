"""Any network definition -> a loopnet one: properties, choices, refusals."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from libvirt_loopnet.errors import ConflictError, InputError, PoolFullError
from libvirt_loopnet.networks.dnsmasq_options import OPTIONS_TAG
from libvirt_loopnet.networks.new import new_network
from libvirt_loopnet.networks.parsing import definition_of, missing_options, parse_network
from libvirt_loopnet.networks.refusals import REFUSALS
from libvirt_loopnet.networks.rewrite import rewrite_network
from libvirt_loopnet.prefixes import LOOPBACK
from libvirt_loopnet.xml.tree import parse


def definition(ip: str = "<ip address='192.168.122.1' prefix='24'/>", forward: str = "<forward/>") -> bytes:
    return f"<network>\n  <name>net</name>\n  {forward}\n  {ip}\n</network>\n".encode()


def net(text: str) -> IPv4Network:
    return IPv4Network(text)


REFUSED = {
    "no-name": b"<network><forward/></network>",
    "forwarder": definition(forward="<dns><forwarder addr='192.0.2.1'/></dns>"),
    "device": definition("", "<forward mode='bridge'/>"),
    "hostdev": definition("", "<forward mode='hostdev' managed='yes'/>"),
    "forward": definition(forward="<forward mode='magic'/>"),
    "no-ip": definition(""),
    "ipv6-only": definition("<ip family='ipv6' address='fd00::1' prefix='64'/>"),
    "many-ipv4": definition("<ip address='10.0.1.1' prefix='24'/><ip address='10.0.2.1' prefix='24'/>"),
    "family": definition("<ip family='ipx' address='1'/>"),
    "long": definition("<ip address='10.0.0.1' prefix='30'/>"),
    "short": definition("<ip address='10.0.0.1' netmask='255.0.0.0'/>"),
    "gateway": definition("<ip address='192.168.122.0' prefix='24'/>"),
    "loopback": definition("<ip address='127.5.0.1' prefix='24'/>"),
    "element": definition("<ip address='10.0.0.1' prefix='24'><dhcp><lease/></dhcp></ip>"),
    "name": definition().replace(b">net<", b">a b<"),
}


def test_every_refusal_has_a_case() -> None:
    assert set(REFUSED) == set(REFUSALS)


@pytest.mark.parametrize("reason", REFUSED)
def test_refusal(reason: str) -> None:
    with pytest.raises(InputError) as caught:
        rewrite_network(REFUSED[reason])
    said = str(caught.value)
    assert all(part in said for part in _fixed_parts(REFUSALS[reason]))
    assert "\n" not in said
    assert caught.value.status == 2


def _fixed_parts(template: str) -> list[str]:
    return [part.split("}")[-1] for part in template.split("{")]


@pytest.mark.parametrize("mode", ["private", "vepa", "passthrough", "bridge"])
def test_modes_without_a_bridge_of_their_own(mode: str) -> None:
    with pytest.raises(InputError, match=f"forward mode {mode} puts guests on a device"):
        rewrite_network(definition("", f"<forward mode='{mode}'><interface dev='eth0'/></forward>"))


@pytest.mark.parametrize(
    "xml",
    [
        b"",
        b"<network>",
        b"<domain/>",
        b"<networkstatus>" + definition() + b"</networkstatus>",
        b"<!DOCTYPE n [<!ENTITY a 'b'>]>" + definition(),
        definition().replace(b"</name>", b"</name><dnsmasq:options/>"),
        definition().replace(b"</name>", b"</name><unknown/>"),
        definition("<ip address='192.168.122.1' prefix='33'/>"),
        definition("<ip address='192.168.122.1' netmask='255.0.255.0'/>"),
        definition("<ip address='fd00::1' prefix='64'/>"),
        definition("<ip/>"),
    ],
)
def test_bad_xml(xml: bytes) -> None:
    with pytest.raises(InputError) as caught:
        rewrite_network(xml)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"loop_prefix": net("10.0.0.0/24")}, "outside 127"),
        ({"loop_prefix": net("127.0.1.0/24")}, "127.0.0.0/16"),
        ({"loop_prefix": net("127.2.0.0/25")}, "differ in length"),
        ({"guest_prefix": net("127.2.0.0/24")}, "127.0.0.0/8"),
        ({"guest_prefix": net("224.0.0.0/24")}, "224.0.0.0"),
        ({"mode": "magic"}, "magic"),
        ({"mode": "native", "guest_prefix": net("10.0.0.0/24")}, "native mode"),
        ({"gateway": 0}, "gateway '0'"),
        ({"gateway": 255}, "gateway '255'"),
    ],
)
def test_what_is_asked_must_fit(asked: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        rewrite_network(definition(), **asked)  # type: ignore[arg-type]


def test_loop_prefix_is_the_first_free_and_stable() -> None:
    taken = [("a", net("127.1.0.0/24")), ("net", net("127.2.0.0/24")), ("b", net("127.3.4.0/24"))]
    first = rewrite_network(definition(), taken=taken)
    assert first.network.loop_prefix == net("127.2.0.0/24")  # its own, so to speak
    other = rewrite_network(definition(), taken=[*taken, ("c", net("127.2.0.0/24"))])
    assert other.network.loop_prefix == net("127.3.0.0/24")
    assert rewrite_network(other.xml, taken=taken).xml is other.xml


def test_overlap_is_refused() -> None:
    taken = [("a", net("127.8.0.0/13"))]
    with pytest.raises(ConflictError, match=r"overlaps 127\.8\.0\.0/13 of network a"):
        rewrite_network(definition(), loop_prefix=net("127.9.0.0/24"), taken=taken)
    once = rewrite_network(definition(), loop_prefix=net("127.9.0.0/24"))
    with pytest.raises(ConflictError):
        rewrite_network(once.xml, taken=taken)


def test_known_users_are_avoided_or_named() -> None:
    tor = rewrite_network(definition("<ip address='10.0.0.1' prefix='9'/>"))
    assert tor.network.loop_prefix == net("127.128.0.0/9")
    assert "Tor" in "".join(tor.warnings)
    kubefwd = rewrite_network(definition(), loop_prefix=net("127.1.27.0/24"))
    assert "kubefwd" in "".join(kubefwd.warnings)
    full = [("a", net("127.128.0.0/9"))]
    with pytest.raises(ConflictError, match="no free prefix of length /9"):
        rewrite_network(definition("<ip address='10.0.0.1' prefix='9'/>"), taken=full)


def test_gateway_and_host_number() -> None:
    host = "<host mac='52:54:00:00:00:01' ip='10.1.255.254'/>"
    ip = f"<ip address='10.1.0.9' prefix='16'><dhcp>{host}</dhcp></ip>"
    result = rewrite_network(definition(ip), occupied=[65533])
    assert (result.network.gateway, result.network.host) == (9, 65532)
    assert rewrite_network(result.xml, occupied=[65532]).xml is result.xml


def test_full_network() -> None:
    with pytest.raises(PoolFullError, match="every address"):
        rewrite_network(definition("<ip address='10.1.0.1' prefix='29'/>"), occupied=range(2, 7))


def test_other_gateway_frees_the_old_number() -> None:
    once = rewrite_network(definition())
    again = rewrite_network(once.xml, gateway=254)
    assert (again.network.gateway, again.network.host) == (254, 253)


def test_loopback_network_can_be_native_or_mapped() -> None:
    xml = definition("<ip address='127.5.0.1' prefix='24'/>", "<forward mode='open'/>")
    native = rewrite_network(xml, mode="native").network
    assert (native.loop_prefix, native.guest_prefix) == (net("127.5.0.0/24"), net("127.5.0.0/24"))
    mapped = rewrite_network(xml, guest_prefix=net("10.5.0.0/24")).network
    assert (mapped.loop_prefix, mapped.guest_prefix) == (net("127.5.0.0/24"), net("10.5.0.0/24"))


def test_new_network_is_left_alone() -> None:
    for mode, guest in (("mapped", "10.127.5.0/24"), ("native", "127.5.0.0/24")):
        xml = new_network("n", net("127.5.0.0/24"), net(guest), mode)
        result = rewrite_network(xml)
        assert result.xml is xml
        assert result.warnings == ()


def test_hosts_with_numbers_that_no_guest_can_have_are_dropped_and_told() -> None:
    numbers = {"01": 0, "02": 255, "03": 7}
    hosts = "".join(f"<host mac='52:54:00:00:00:{m}' ip='192.168.122.{n}'/>" for m, n in numbers.items())
    result = rewrite_network(
        definition(f"<ip address='192.168.122.1' prefix='24'><dhcp>{hosts}</dhcp></ip>"),
    )
    assert result.warnings == tuple(
        f"network net: host number {number} of 52:54:00:00:00:{mac} can't be a guest's in 127.1.0.0/24 and was dropped"
        for mac, number in list(numbers.items())[:2]
    )
    assert b'number="7"' in result.xml
    assert b'number="255"' not in result.xml


def test_new_network_may_have_uuid_and_bridge() -> None:
    """As a package writes it: what libvirt reads at its start gets nothing added."""
    prefixes = (net("127.5.0.0/24"), net("10.127.5.0/24"))
    uuid, bridge, mac = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0", "virbr7", "52:54:00:00:00:fe"
    network = parse_network(new_network("n", *prefixes, "mapped", uuid=uuid, bridge=bridge, bridge_mac=mac))
    assert network is not None
    assert (network.uuid, network.bridge, network.bridge_mac) == (uuid, bridge, mac)


def test_what_is_isolated_stays_so() -> None:
    loopnet = rewrite_network(definition()).xml.replace(b'<forward mode="open"/>', b"")
    for xml in (definition(forward=""), loopnet):
        made = rewrite_network(xml)
        assert made.network.internet == "none"
        assert b'internet="none"' in made.xml
        assert b'<forward mode="open"/>' in made.xml
        for option in (b'"no-resolv"', b'"dhcp-option=3"'):
            assert option in made.xml
        assert rewrite_network(made.xml).xml == made.xml
    assert rewrite_network(definition()).network.internet == "all"


FOREIGN = (
    "<mtu size='1400'/>",
    '<bandwidth>\n<inbound average="1"/></bandwidth>',
    "<port isolated='yes' />",
    "<portgroup name='a'>\n\t<bandwidth><outbound average='10'/></bandwidth>\n</portgroup>",
    "<domain name = 'x.example' localOnly=\"no\"/>",
    "<dns><host ip='192.168.122.9'><hostname>h&#49;</hostname></host><txt name='a' value='&gt;'/></dns>",
    "<ip family='ipv6' address='fd00::1' prefix='64'><dhcp><host id='0:1' ip='fd00::2'/></dhcp></ip>",
    "<mac address='52:54:00:00:00:01'/>",
    "<title>a <![CDATA[<b>]]></title>",
    "<!-- <ip address='10.0.0.1'/> -->",
    "<?pi <forward> ?>",
    "\r\n\t \n",
)
HOSTS = st.builds(
    lambda number, mac: f"<host mac='52:54:00:00:00:{mac:02x}' ip='10.20.{number >> 8}.{number & 255}'/>",
    st.integers(0, 1023),
    st.integers(0, 255),
)
SPACE = st.sampled_from(["", " ", "\n", "\n  ", "\r\n\t"])


@st.composite
def definitions(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A definition that can be rewritten, and its foreign pieces in order."""
    foreign = draw(st.lists(st.sampled_from(FOREIGN), unique=True, max_size=8))
    length = draw(st.integers(16, 29))
    dhcp = "".join(draw(SPACE) + host for host in draw(st.lists(HOSTS, max_size=3)))
    dhcp = draw(st.sampled_from(["", f"<dhcp>{dhcp}\n</dhcp>", f"<dhcp><bootp file='/f'/>{dhcp}</dhcp>"]))
    address = draw(st.sampled_from(["10.20.0.1", "10.20.0.6"]))
    ours = [
        draw(st.sampled_from(["<forward/>", "<forward mode='nat' dev='e'><interface dev='e'/> </forward>"])),
        f"<ip prefix='{length}' address='{address}'>{dhcp}</ip>",
        *draw(st.sampled_from([[], ["<metadata/>"], ["<metadata><a xmlns='urn:a'> b </a></metadata>"]])),
        *draw(
            st.sampled_from([[], ["<d:options xmlns:d='http://libvirt.org/schemas/network/dnsmasq/1.0'/>"]])
        ),
    ]
    pieces = draw(st.permutations([*foreign, *ours]))
    text = "".join(draw(SPACE) + piece for piece in ("<name>n</name>", *pieces))
    kept = [piece.encode() for piece in pieces if piece in foreign]
    return f"<network>{text}{draw(SPACE)}</network>".encode(), kept


@settings(deadline=None)
@given(definitions())
def test_idempotent_and_foreign_kept(case: tuple[bytes, list[bytes]]) -> None:
    xml, foreign = case
    once = rewrite_network(xml)
    assert parse_network(once.xml) == once.network
    assert missing_options(definition_of(once.xml), once.network) == ()
    assert once.network.loop_prefix.subnet_of(LOOPBACK)
    twice = rewrite_network(once.xml)
    assert twice.xml is once.xml
    assert twice.reservations == once.reservations
    assert theirs(once.xml) == theirs(xml)
    assert len([piece for piece in foreign if piece.strip()]) <= len(theirs(xml))


def theirs(xml: bytes) -> list[bytes]:
    """All that is not ours to change, in canonical form and its order, with the text that is not white space."""
    root = etree.fromstring(xml)
    found = [(root.text or "").strip().encode()]
    for node in root:
        if node.tag == "metadata":
            found += [_form(child) for child in node if child.prefix != "loopnet"]
        elif node.tag == "ip" and node.get("family") is None:
            kept = [dhcp for dhcp in node if dhcp.tag != "dhcp"]
            kept += [
                each for dhcp in node.findall("dhcp") for each in dhcp if each.tag not in ("range", "host")
            ]
            found += map(_form, kept)
        elif node.tag not in ("forward", OPTIONS_TAG):
            found.append(_form(node))
        found.append((node.tail or "").strip().encode())
    return [form for form in found if form]


def _form(node: etree._Element) -> bytes:
    method = "c14n" if isinstance(node.tag, str) else "xml"  # of a comment lxml makes no C14N, it dies
    return etree.tostring(node, method=method, with_tail=False)


@settings(deadline=None)
@given(definitions())
def test_host_numbers_stay(case: tuple[bytes, list[bytes]]) -> None:
    xml, _ = case
    result = rewrite_network(xml)
    network = result.network
    given_hosts = {
        (host.get("mac"), IPv4Address(host.get("ip")))
        for ip in parse(xml).findall("ip")
        for dhcp in ip.findall("dhcp")
        for host in dhcp.findall("host")
        if host.get("mac")
    }
    for host in result.reservations:
        assert (host.mac, network.guest_address(host.number)) in given_hosts
        assert host.number not in (network.gateway, network.host)
        assert host.number in network.guest_numbers
    assert len({host.number for host in result.reservations}) == len(result.reservations)


@settings(deadline=None)
@given(definitions(), st.sampled_from(["mapped", "native"]), st.integers(1, 6))
def test_there_and_elsewhere(case: tuple[bytes, list[bytes]], mode: str, gateway: int) -> None:
    """Whatever is asked of a loopnet network comes out, and once more changes nothing."""
    first = rewrite_network(case[0])
    length = first.network.loop_prefix.prefixlen
    loop = IPv4Network(("127.77.0.0", length))
    second = rewrite_network(first.xml, mode=mode, loop_prefix=loop, gateway=gateway)
    assert (second.network.mode, second.network.loop_prefix) == (mode, loop)
    assert second.network.gateway == gateway
    assert rewrite_network(second.xml).xml is second.xml
    options = second.xml.count(b"dhcp-range=")
    assert options == 1
