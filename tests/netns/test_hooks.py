"""The hooks with what they should never be given: one clear line, the right status, nothing changed."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
from collections.abc import Iterator

import pytest

from libvirt_loopnet.hook import NEVER, OPERATIONS
from tests.sandbox.snapshot import Snapshot

from .lab import HOOKS, RUN, STATE, Lab, LabNetwork, bound_over, domain_xml, eventually, guest_uuid, nic_mac
from .looking import assert_same, look

NAMESPACE = "https://libvirt-loopnet.org/xml/network/1"
BOMB = """<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]>"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(starts=True) as made:
        network = made.network(9)  # for what stays for good, see test_restore.py
        made.start(network)
        guest = made.guest(network)
        made.destroy(guest)
        made.stop(network)
        yield made


@pytest.fixture(scope="module")
def untouched(lab: Lab) -> Snapshot:
    """The host before any test."""
    return with_reservations(lab)


def with_reservations(lab: Lab) -> Snapshot:
    return {**look(lab), "reservations": lab.host.sh(f"cat {STATE}/*.reservations")}


@pytest.fixture(autouse=True)
def nothing_changes(request: pytest.FixtureRequest, lab: Lab, untouched: Snapshot) -> Iterator[None]:
    """Whatever a test does, in the end the host is as it was before the first."""
    yield
    if "changes" in request.keywords:
        lab.clean()
        lab.host.sh(f"cd {STATE}; for file in *; do [ $file = net9.reservations ] || rm $file; done")
        assert_same({**untouched, "reservations": ""}, {**look(lab), "reservations": ""})
    else:
        assert_same(untouched, with_reservations(lab))


def assert_line(result: subprocess.CompletedProcess[str], status: int, says: str) -> None:
    assert result.returncode == status, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("libvirt-loopnet: ")
    assert says in result.stderr


def assert_silent(result: subprocess.CompletedProcess[str]) -> None:
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def run_hook(lab: Lab, driver: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    path = f"{HOOKS}/{driver}.d/50-loopnet"
    return lab.host.run(["env", "-i", path, *arguments], input=stdin, check=False)


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["network", "qemu"])
@pytest.mark.parametrize("arguments", [(), ("net1",)])
def test_too_few_arguments(lab: Lab, driver: str, arguments: tuple[str, ...]) -> None:
    assert_line(run_hook(lab, driver, *arguments), 2, "too few arguments")


@pytest.mark.parametrize("driver", ["network", "qemu"])
@pytest.mark.parametrize("operation", ["frobnicate", "", "prepare", "release", "attach", "START", "-h"])
def test_unknown_operation(lab: Lab, driver: str, operation: str) -> None:
    data = lab.network(1).hook_data() if driver == "network" else domain_xml("vm1", [])
    assert_silent(run_hook(lab, driver, "net1", operation, "begin", "-", stdin=data))


# --- XML -----------------------------------------------------------------------------------------


def expect_bad_xml(lab: Lab, driver: str, operation: str, data: str, says: str) -> None:
    """Refused where the operation may be, else logged."""
    result = lab.hook(driver, "net1", operation, data, check=False)
    if OPERATIONS[driver, operation][1] == NEVER:
        assert_silent(result)
        eventually(lambda: says in lab.syslog().splitlines()[-1])
    else:
        assert_line(result, 1, says)


OPERATION_IDS = [key for key in OPERATIONS if key[0] == "network"]


@pytest.mark.parametrize(("driver", "operation"), OPERATION_IDS)
def test_broken_network_xml(lab: Lab, driver: str, operation: str) -> None:
    good = lab.network(1).hook_data()
    broken = {
        good[: len(good) // 2]: "not well-formed XML",
        good.replace("</hookData>", ""): "not well-formed XML",
        BOMB + good.replace(">net1<", ">&d;<", 1): "DOCTYPE",
        good.replace("hookData", "network"): "hookData",
        f"{NAMESPACE} but no XML": "not well-formed XML",
        good.replace("</hookData>", "<x>" * 100 + "</x>" * 100 + "</hookData>"): "levels",
    }
    for data, says in broken.items():
        expect_bad_xml(lab, driver, operation, data, says)


@pytest.mark.parametrize("operation", ["start", "port-created", "stopped"])
def test_huge_network_xml(lab: Lab, operation: str) -> None:
    good = lab.network(1).hook_data()
    huge = good.replace("</hookData>", f"<!--{'x' * (50 << 20)}--></hookData>")
    expect_bad_xml(lab, "network", operation, huge, "more than 8 MiB")


@pytest.mark.parametrize(("driver", "operation"), [key for key in OPERATIONS if key[0] == "qemu"])
def test_broken_domain_xml(lab: Lab, driver: str, operation: str) -> None:
    """Of a guest on a network of ours, as far as that can be told."""
    good = "<domain><name>vm1</name><devices><interface><source network='net9'/></interface></devices>"
    lab.path("/etc/libvirt-loopnet.conf").write_text('move = [ "net9:net1" ]\n')
    # the end of a guest matters only where a NIC has no port
    lab.host.sh("mkdir -p /run/libvirt-loopnet/net9; touch /run/libvirt-loopnet/net9/52:54:00:aa:00:99.nic")
    try:
        expect_bad_xml(lab, driver, operation, good, "not well-formed XML")
        expect_bad_xml(lab, driver, operation, BOMB + good + "</domain>", "DOCTYPE")
        huge = good + f"<!--{'x' * (50 << 20)}--></domain>"
        expect_bad_xml(lab, driver, operation, huge, "more than 8 MiB")
    finally:
        lab.path("/etc/libvirt-loopnet.conf").unlink()
        lab.host.sh("rm -r /run/libvirt-loopnet/net9; rmdir --ignore-fail-on-non-empty /run/libvirt-loopnet")


def test_nothing_on_stdin(lab: Lab) -> None:
    """Nothing says that it is ours."""
    for driver, operation in OPERATIONS:
        assert_silent(lab.hook(driver, "net1", operation, ""))
        assert_silent(lab.hook(driver, "net1", operation, "\n" * 9 * (1 << 20)))


def test_closed_stdin(lab: Lab) -> None:
    for driver in ("network", "qemu"):
        script = f"exec {HOOKS}/{driver}.d/50-loopnet net1 start begin - <&-"
        result = lab.host.run(["sh", "-c", script], check=False)
        assert "Traceback" not in result.stderr
        assert result.stderr.count("\n") <= 1


# --- definitions ---------------------------------------------------------------------------------

BAD_NETWORKS: dict[str, tuple[str, str, str]] = {
    "outside-127": ("address='127.1.0.254'", "address='10.1.0.254'", "outside 127.0.0.0/8"),
    "localhosts-own": ("address='127.1.0.254'", "address='127.0.9.254'", "127.0.0.0/16"),
    "too-short": ("netmask='255.255.255.0'", "prefix='8'", "127.0.0.0/8"),
    "too-long": ("netmask='255.255.255.0'", "prefix='30'", "127.1.0.252/30"),
    "host-bits": ("guest-prefix='10.127.1.0/24'", "guest-prefix='10.127.1.5/24'", "host bits set"),
    "other-length": ("guest-prefix='10.127.1.0/24'", "guest-prefix='10.127.0.0/16'", "differ in length"),
    "guest-in-127": ("guest-prefix='10.127.1.0/24'", "guest-prefix='127.1.0.0/24'", "native"),
    "no-prefix": ("guest-prefix='10.127.1.0/24'", "guest-prefix='ten'", "ADDRESS/LENGTH"),
    "unknown-mode": ("mode='mapped'", "mode='magic'", "mode 'magic' is unknown"),
    "gateway-is-host": ("gateway='1'", "gateway='254'", "both have number 254"),
    "gateway-outside": ("gateway='1'", "gateway='255'", "from 1 to 254"),
    "unknown-attribute": ("gateway='1'", "gatewy='1'", "gatewy"),
    "bridge-too-long": ("name='virbr1'", "name='virbr-far-too-long'", "at most 15"),
    "bridge-two-words": ("name='virbr1'", "name='a b'", "device"),
    "nat": ("mode='open'", "mode='nat'", "forward mode='open'"),
    "tftp-in-two-lines": (
        "netmask='255.255.255.0'/>",
        "netmask='255.255.255.0'><tftp root='/srv&#10;log-queries'/></ip>",
        "no path of a directory",
    ),
    "no-options": ("no-ping", "no-pong", "lacks the dnsmasq option 'no-ping'"),
    "no-address": ("<ip address='127.1.0.254' netmask='255.255.255.0'/>", "", "0 IPv4 <ip> elements"),
    "name-with-a-slash": ("<name>net1</name>", "<name>a/../b</name>", "network name"),
    "name-with-rules": ("<name>net1</name>", "<name>a; drop</name>", "network name"),
    "another-mac": ("52:54:00:b0:00:01", "52:54:00", "MAC address"),
}


@pytest.mark.parametrize("case", BAD_NETWORKS)
def test_bad_definition(lab: Lab, case: str) -> None:
    old, new, says = BAD_NETWORKS[case]
    good = lab.network(1).hook_data()
    assert old in good
    result = lab.hook("network", "net1", "start", good.replace(old, new), check=False)
    assert_line(result, 1, says)


@pytest.mark.changes
def test_overlap_with_an_active_network(lab: Lab) -> None:
    first = lab.network(1)
    lab.start(first)
    before = look(lab)
    xml = first.hook_data().replace(">net1<", ">other<").replace("virbr1", "virbr7")
    xml = xml.replace("net1.loopnet", "other.loopnet").replace(
        "127.1.0.254' netmask='255.255.255.0'", "127.1.3.254' prefix='20'"
    )
    xml = xml.replace("10.127.1.0/24", "10.127.0.0/20").replace(
        "10.127.1.0,static,255.255.255.0", "10.127.0.0,static,255.255.240.0"
    )
    result = lab.hook("network", "other", "start", xml, check=False)
    assert_line(result, 1, "127.1.0.0/20 of network other overlaps 127.1.0.0/24 of network net1")
    assert_same(before, look(lab))


@pytest.mark.parametrize("address", ["127.1.0.9/32", "247.1.0.9/32"])
def test_address_in_use_on_the_host(lab: Lab, address: str) -> None:
    lab.host.run(["ip", "address", "add", address, "dev", "lo"])
    try:
        result = lab.network_hook(lab.network(1), "start", check=False)
        assert_line(result, 1, f"ip address del {address.partition('/')[0]}")
    finally:
        lab.host.run(["ip", "address", "del", address, "dev", "lo"])


@pytest.mark.parametrize("operation", [operation for driver, operation in OPERATIONS if driver == "network"])
def test_foreign_network(lab: Lab, operation: str) -> None:
    xml = (
        "<hookData><network><name>default</name><forward mode='nat'/><bridge name='virbr0'/>"
        "<ip address='192.168.122.1' netmask='255.255.255.0'/></network></hookData>"
    )
    assert_silent(lab.hook("network", "default", operation, xml))


@pytest.mark.parametrize("operation", [operation for driver, operation in OPERATIONS if driver == "qemu"])
def test_foreign_guest(lab: Lab, operation: str) -> None:
    xml = (
        "<domain><name>vm1</name><devices><interface type='network'><source network='default'/>"
        "</interface><interface type='bridge'><source bridge='br0'/></interface></devices></domain>"
    )
    assert_silent(lab.hook("qemu", "vm1", operation, xml))


def test_foreign_events_are_cheap(lab: Lab) -> None:
    """Nothing heavy is imported for what is not ours."""
    heavy = lab.host.python(
        "import sys; sys.path.insert(0, sys.argv[1]); sys.stdin = open('/dev/null')\n"
        "from libvirt_loopnet import hook\n"
        "hook.main(['qemu', 'vm1', 'start']); hook.main(['network', 'default', 'started'])\n"
        "print(sorted(name for name in sys.modules if name.startswith('libvirt_loopnet.')))",
        str(lab._checkout),
    )  # fmt: skip
    assert json.loads(heavy.replace("'", '"')) == ["libvirt_loopnet.hook"]


ONCE = """\
import sys; sys.path.insert(0, sys.argv[1])
from libvirt_loopnet.xml import tree
parse, seen = tree.parse, []
tree.parse = lambda data: seen.append(data) or parse(data)
from libvirt_loopnet import hook
print(hook.main(sys.argv[2:]), sum(each is seen[0] for each in seen))
"""


@pytest.mark.changes
@pytest.mark.parametrize("operation", ["start", "updated", "port-created", "port-deleted"])
def test_what_libvirt_tells_is_parsed_once(lab: Lab, operation: str) -> None:
    network = lab.network(1)
    if operation != "start":
        lab.start(network)
    data = network.hook_data(port_xml(1) if operation.startswith("port") else "")
    argv = [
        "/usr/bin/python3",
        "-I",
        "-c",
        ONCE,
        str(lab._checkout),
        "network",
        network.model.name,
        operation,
    ]
    assert lab.host.run(argv, input=data).stdout == "0 1\n"
    if operation == "start":  # which no clean-up finds active
        lab.network_hook(network, "stopped")


def test_stopped_without_a_start(lab: Lab) -> None:
    network = lab.network(1)
    assert_silent(lab.network_hook(network, "port-deleted", port=port_xml(1)))
    assert_silent(lab.network_hook(network, "stopped"))
    assert_silent(lab.hook("qemu", "vm1", "stopped", domain_xml("vm1", [])))


@pytest.mark.changes
def test_a_port_is_deleted_after_its_network(lab: Lab) -> None:
    lab.network_hook(lab.network(1), "port-deleted", port=port_xml(1))
    try:
        assert not lab.path("/run/libvirt-loopnet").exists()
    finally:
        lab.host.sh("rm -rf /run/libvirt-loopnet")


# --- the script ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["50-loopnet.dpkg-dist", "50-loopnet.dpkg-old", "50-loopnet.rpmsave", "50-loopnet~", "x"]
)
@pytest.mark.parametrize("driver", ["network", "qemu"])
def test_a_leftover_does_nothing(lab: Lab, driver: str, name: str) -> None:
    directory = f"{HOOKS}/{driver}.d"
    lab.host.sh(f"cp {directory}/50-loopnet {directory}/{name}")
    data = lab.network(1).hook_data()
    result = lab.host.run([f"{directory}/{name}", "net1", "start", "begin", "-"], input=data, check=False)
    lab.host.sh(f"rm {directory}/{name}")
    assert_silent(result)


@pytest.mark.parametrize("suffix", ["", "-removed"])
@pytest.mark.parametrize("driver", ["network", "qemu"])
def test_the_package_is_gone(lab: Lab, driver: str, suffix: str) -> None:
    """A package manager leaves configuration files behind: our networks don't start, all else goes on."""
    path, orphan = f"{HOOKS}/{driver}.d/50-loopnet", f"/run/x/50-loopnet{suffix}"
    refused = (
        "libvirt-loopnet: network net1: libvirt-loopnet was removed; install it, or use another network\n"
    )
    data = lab.network(1).hook_data()
    events = [(data, each) for event_driver, each in OPERATIONS if event_driver == driver and each != "start"]
    try:
        for given, operation in [(data, "start"), (data.replace("loopnet", "other"), "start"), *events]:
            lab.host.sh(
                f"mkdir -p /run/x; sed 's,^package=.*,package=/nowhere,' {path} >{orphan}; chmod +x /run/x/*"
            )
            result = lab.host.run([orphan, "net1", operation, "begin", "-"], input=given, check=False)
            expected = (
                (1, "", refused) if (driver, given, operation) == ("network", data, "start") else (0, "", "")
            )
            assert (result.returncode, result.stdout, result.stderr) == expected
            assert lab.path(orphan).exists() == (not suffix)
    finally:
        lab.host.sh("rm -r /run/x")


@pytest.mark.parametrize("driver", ["network", "qemu"])
def test_not_root(lab: Lab, driver: str) -> None:
    """Session daemons run the hooks in /etc as well."""
    path = f"{HOOKS}/{driver}.d/50-loopnet"
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    data = lab.network(1).hook_data()
    assert_silent(lab.host.run([*user, path, "net1", "start", "begin", "-"], input=data, check=False))


def test_python_of_the_environment_is_not_heard(lab: Lab) -> None:
    """PYTHONPATH, PYTHONHOME and files where the hook is called."""
    lab.host.sh("mkdir /run/x; echo 'raise SystemExit(77)' | tee /run/x/os.py /run/x/libvirt_loopnet.py")
    script = f"cd /run/x; exec {HOOKS}/network.d/50-loopnet net1 start begin -"
    environment = ["env", "PYTHONPATH=/run/x", "PYTHONHOME=/run/x", "PYTHONINSPECT=1"]
    try:
        result = lab.host.run(
            [*environment, "sh", "-c", script], input=lab.network(1).hook_data()[:-3], check=False
        )
        assert_line(result, 1, "not well-formed XML")
    finally:
        lab.host.sh("rm -r /run/x")


def test_without_nft(lab: Lab) -> None:
    network = lab.network(1)
    with bound_over(lab, "/usr/sbin/nft", ""):
        lab.path("/run/fake/nft").chmod(0o644)
        result = lab.network_hook(network, "start", check=False)
        assert_line(result, 1, "nft is not installed; install the package nftables")


def test_without_ip(lab: Lab) -> None:
    network = lab.network(1)
    with bound_over(lab, "/usr/bin/ip", ""):
        lab.path("/run/fake/ip").chmod(0o644)
        result = lab.network_hook(network, "start", check=False)
        assert_line(result, 1, "ip is not installed; install the package iproute2")


def test_doctor_while_a_network_starts(lab: Lab) -> None:
    """The hook has noted it, and libvirt has no file of it yet."""
    network = lab.network(1)
    lab.network_hook(network, "start")
    lab.make_bridge(network)
    lab.network_hook(network, "started")
    told = lab.host.run(["loopnet", "doctor", "--json"], check=False)
    assert told.stderr == ""
    assert "leases" not in {finding["id"] for finding in json.loads(told.stdout)}
    lab.stop(network)


UNABLE = ["setpriv", "--bounding-set", "-sys_admin"]
"""It can make no namespaces."""


@pytest.mark.parametrize("networks", [0, 1])
def test_rules_can_not_be_tried(lab: Lab, networks: int) -> None:
    """doctor says so, whether a network is up or not, and all else that it has found."""
    network = lab.network(1)
    if networks:
        lab.start(network)
    lab.path("/etc/libvirt-loopnet.conf").write_text('open-firewalls = ["ip none"]\n')
    told = lab.host.run([*UNABLE, "loopnet", "doctor", "--json"], check=False)
    found = {finding["id"]: finding["what"] for finding in json.loads(told.stdout)}
    assert (
        "no network namespace to try rules in: unshare: unshare failed: Operation not" in found["nft-refuses"]
    )
    assert "firewall-absent" in found, "nor is anything else left out"
    assert told.returncode == 1
    lab.path("/etc/libvirt-loopnet.conf").unlink()
    if networks:
        lab.stop(network)


# --- addresses -----------------------------------------------------------------------------------


def port_xml(index: int, bridge: str = "virbr1", mac: str = "") -> str:
    return (
        f"<networkport><uuid>{guest_uuid(f'port{index}')}</uuid><owner><name>guest{index}</name>"
        f"<uuid>{guest_uuid(f'guest{index}')}</uuid></owner><mac address='{mac or nic_mac(index)}'/>"
        f"<plug type='network' bridge='{bridge}'/></networkport>"
    )


def admitted(lab: Lab, network: LabNetwork) -> dict[str, str]:
    """Guests' addresses by MAC, as the rules have them."""
    name = f"senders-{network.model.loop_prefix.network_address}"
    text = lab.host.run(["nft", "-j", "list", "set", "bridge", "loopnet", name]).stdout
    entry = next(part["set"] for part in json.loads(text)["nftables"] if "set" in part)
    return dict(pair["concat"] for pair in entry.get("elem", []))


@pytest.mark.changes
def test_fifty_guests_at_once(lab: Lab) -> None:
    network = lab.network(1)
    lab.start(network)

    def create(index: int) -> int:
        return lab.network_hook(network, "port-created", port=port_xml(index), check=False).returncode

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert set(pool.map(create, range(1, 51))) == {0}
    numbers = lab.reserved(network)
    wanted = {
        nic_mac(index): str(network.model.guest_address(numbers[nic_mac(index)])) for index in range(1, 51)
    }
    assert len(set(wanted.values())) == 50
    assert admitted(lab, network) == wanted
    hosts = lab.path("/etc/hosts").read_text()
    assert sum(line.endswith("# libvirt-loopnet: guest") for line in hosts.splitlines()) == 50
    files = lab.host.sh("cat /var/lib/libvirt/dnsmasq/net1.loopnet/*").splitlines()
    assert {tuple(line.split(",")[:2]) for line in files} >= set(wanted.items())


@pytest.mark.changes
def test_a_full_pool(lab: Lab) -> None:
    """A /29 has four numbers for guests; the fifth is refused, and no sixth is lost."""
    network = lab.network(5, length=29)
    lab.start(network)
    for index in range(1, 5):
        lab.network_hook(network, "port-created", port=port_xml(index, "virbr5"))
    before = look(lab)
    for index in (5, 6):
        result = lab.network_hook(network, "port-created", port=port_xml(index, "virbr5"), check=False)
        assert_line(result, 1, "127.5.0.0/29")
        assert "loopnet release" in result.stderr
    assert_same(before, look(lab))
    assert sorted(lab.reserved(network).values()) == [2, 3, 4, 5]
    lab.network_hook(network, "port-created", port=port_xml(3, "virbr5"))


@pytest.mark.changes
@pytest.mark.parametrize(
    "mac", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "52:54:00:aa:00", "", "zz:54:00:aa:00:01"]
)
def test_a_bad_mac_address(lab: Lab, mac: str) -> None:
    network = lab.network(1)
    lab.start(network)
    before = look(lab)
    port = port_xml(1, mac=mac or " ")
    result = lab.network_hook(network, "port-created", port=port, check=False)
    assert_line(result, 1, "address")
    assert_same(before, look(lab))


@pytest.mark.changes
def test_the_old_names_of_events(lab: Lab) -> None:
    """Until libvirt 5.5 port-created was plugged."""
    network = lab.network(1)
    lab.start(network)
    lab.network_hook(network, "plugged", port=port_xml(7))
    assert nic_mac(7) in admitted(lab, network)
    lab.network_hook(network, "unplugged", port=port_xml(7))
    assert nic_mac(7) not in admitted(lab, network)


@pytest.mark.changes
@pytest.mark.parametrize("damage", ["garbage", "# libvirt-loopnet reservations, version 5\n# end 0\n", ""])
def test_damaged_reservations(lab: Lab, damage: str) -> None:
    """They are not overwritten; guests that run go on, and a network stops as well as ever."""
    network = lab.network(1)
    lab.start(network)
    guest = lab.guest(network)
    store = lab.path(f"{STATE}/net1.reservations")
    good = store.read_text()
    before = look(lab)
    store.write_text(damage)
    try:
        result = lab.network_hook(network, "port-created", port=port_xml(8), check=False)
        assert_line(result, 1, f"{STATE}/net1.reservations")
        lab.hook("qemu", guest.name, "reconnect", guest.domain_xml)
        assert_same(before, look(lab))
        assert store.read_text() == damage
        result = lab.network_hook(lab.network(2), "start", check=False)
        assert_line(result, 1, "net1.reservations")
    finally:
        store.write_text(good)
    lab.stop(network)
    assert "table" not in lab.rules()
    assert "127.0.0.1/8" in look(lab)["ip addr"]


@pytest.mark.changes
def test_a_start_is_undone_although_reservations_are_damaged(lab: Lab) -> None:
    """Those of another network, after this one's start was allowed: bridge and dnsmasq's files go all the same."""
    network, other = lab.network(1), lab.network(2)
    lab.start(network)
    lab.network_hook(other, "start")
    lab.make_bridge(other)
    store = lab.path(f"{STATE}/net1.reservations")
    store.write_text("garbage")
    result = lab.network_hook(other, "started", check=False)
    assert_line(result, 1, "net1.reservations")
    assert not lab.path("/sys/class/net/virbr2").exists()
    assert not lab.path("/var/lib/libvirt/dnsmasq/net2.loopnet").exists()
    store.unlink()
    lab.stop(network)


@pytest.mark.changes
def test_a_network_stops_although_its_reservations_are_damaged(lab: Lab) -> None:
    network = lab.network(1)
    before = look(lab)
    lab.start(network)
    lab.path(f"{STATE}/net1.reservations").write_text("garbage")
    lab.stop(network)
    assert_same(before, look(lab))


@pytest.mark.changes
def test_run_state_that_is_half_written(lab: Lab) -> None:
    """libvirt writes its files while hooks of others read them."""
    network = lab.network(1)
    lab.start(network)
    guest = lab.guest(network)
    ports = lab.path(f"{RUN}/net1/ports")
    (ports / "half.xml").write_text("<networkport><own")
    (ports / "x.xml.new").write_text("")
    lab.path(f"{RUN}/strange.xml").write_text(f"<networkstatus>{NAMESPACE}")
    lab.network_hook(network, "updated")
    assert admitted(lab, network) == {guest.mac: guest.address}
    lab.path(f"{RUN}/strange.xml").unlink()
