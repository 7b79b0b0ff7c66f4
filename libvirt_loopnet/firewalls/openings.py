"""What other firewalls have to be told so that our networks work beside them. Pure.

A packet must pass every base chain of its hook: an accept ends only the chain it stands in, a drop
ends all (nft(8), VERDICT STATEMENTS). So nothing in our own tables can overrule iptables or firewalld;
the accepts go into theirs, ahead of what would drop, and only where something would. libvirt does
the same for its nat networks (LIBVIRT_INP and others; zone ``libvirt``), and nothing for mode 'open'.

* iptables, nft or legacy: a chain of ours, entered from INPUT, FORWARD or OUTPUT by one jump, ahead of
  the first rule that could drop what is ours. Not earlier: what keeps Docker's and libvirt's networks
  apart from others stays ahead of it. ``iptables-restore --noflush`` does all in one transaction.
* firewalld: our bridges go into a zone, in the runtime configuration only.
* nft: tables that the user names, see opened_tables.py.

Opened is what guests and host need of each other, and no service of the host but DHCP, DNS and ICMP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ..errors import HostError
from ..model import NATIVE, Network
from ..records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .opened_tables import Table
    from .ways import Ways

IPTABLES = ("iptables-nft", "iptables-legacy")
"""Both can be in use at once; each keeps tables of its own in the kernel."""
IP6TABLES = ("ip6tables-nft", "ip6tables-legacy")
FIREWALLD = "firewalld"
NFT_TABLE = "nft-table"
BUILTINS = ("INPUT", "FORWARD", "OUTPUT")
ZONES = ("libvirt", "nm-shared")
"""Zones for the bridges of virtual machines, the first that firewalld knows. Both forward everything
and let in DHCP, DNS, ICMP and SSH (libvirt.xml, also TFTP; nm-shared.xml of NetworkManager)."""
REPLIES = "-m conntrack --ctstate RELATED,ESTABLISHED"

_OURS = "LOOPNET_"
_HARMLESS = ("ACCEPT", "RETURN", "LOG", "NFLOG", "MARK", "CONNMARK")
"""Targets that drop nothing; what isn't known to be one of them may."""
_NO_MATTER = (_OURS, "LIBVIRT_")
"""Chains that drop nothing of ours: libvirt's are about bridges of libvirt's other networks."""


class Firewalld(NamedTuple):
    """firewalld, which is running."""

    zone: str
    """The one our bridges belong into."""
    bound: frozenset[tuple[str, str]]
    """(device, zone) in the runtime configuration; other devices are in the default zone."""
    permanent: frozenset[str]
    """Devices that are in ``zone`` by the permanent configuration."""


class Firewalls(NamedTuple):
    """What other firewalls hold now, ours among it."""

    iptables: tuple[tuple[str, str], ...] = ()
    """(one of IPTABLES, its ``iptables-save -t filter``), where these tables are in use."""
    bridges: frozenset[str] = frozenset()
    """All bridge devices; not asked where none of these is in use."""
    firewalld: Firewalld | None = None
    problems: tuple[str, ...] = ()
    """What could not be read, one line each."""
    tables: tuple[Table, ...] = ()
    """Of nft: those that filter what the host sends, and those that have or may get something of ours."""
    uplink: str = ""
    """The device of the default route, '' for none; not asked without tables."""
    bridged: bool = False
    """br_netfilter shows rules for IP what goes from guest to guest; likewise."""
    ip6tools: tuple[str, ...] = ()
    """Which of IP6TABLES are in use."""
    ip6tables: tuple[tuple[str, str], ...] = ()
    """(one of these, its ``ip6tables-save -t filter``), where networks of ours have IPv6."""
    uplink6: str = ""
    """As ``uplink``, in IPv6."""
    bridged6: bool = False


class Order(NamedTuple):
    """One deed: ``tool`` says who does it, ``text`` what, in that tool's own words."""

    tool: str
    text: str

    def __str__(self) -> str:
        if self.tool == FIREWALLD:
            return f"firewall-cmd {self.text}"
        if self.tool == NFT_TABLE:
            return f"nft -f - <<END\n{self.text}END"
        return f"{self.tool}-restore --noflush <<END\n{self.text}END"


def orders(
    observed: Firewalls,
    networks: Sequence[Network],
    devices: Collection[str] = (),
    published: Collection[str] = (),
    trusted: Collection[str] = (),
) -> list[Order]:
    """What brings other firewalls from ``observed`` to what ``networks`` need; none when they have it.

    ``devices`` names bridges that were ours: those are taken out of our zone even if they are gone.
    ``published`` names networks that have a published port. firewalld needs nothing for those: it lets
    pass what was redirected (``ct status dnat accept``, unless StrictForwardPorts is set). ``trusted`` are the
    tables of nft that may be opened, each as family and name.
    """
    ways, ways6 = _ways(observed, networks)
    scripts = [
        (tool, script(saved, networks, observed.bridges, published, ways))
        for tool, saved in observed.iptables
    ]
    if observed.tables:
        scripts += _table_scripts(observed, networks, trusted, ways, ways6)
    if observed.ip6tables:
        from .ip6tables import scripts6

        scripts += scripts6(observed.ip6tables, networks, observed.bridges, ways6)
    found = [Order(tool, text) for tool, text in scripts if text]
    if observed.firewalld:
        bridges = [network.bridge for network in networks]
        texts = _zone_changes(observed.firewalld, bridges, devices)
        found += [Order(FIREWALLD, text) for text in texts]
    return found


def _ways(observed: Firewalls, networks: Sequence[Network]) -> tuple[Ways | None, Ways | None]:
    """By which devices the host's own traffic may leave in IPv4 and in IPv6; None where no rule is known to say."""
    told4, told6 = (observed.tables or tables for tables in (observed.iptables, observed.ip6tables))
    six = any(network.ipv6_prefixes for network in networks)
    if not networks or not (told4 or (told6 and six)):
        return None, None
    from .opened_tables import ways_out  # what most hosts don't need

    return (
        ways_out(observed.tables, observed.iptables, networks) if told4 else None,
        ways_out(observed.tables, observed.ip6tables, networks, six=True) if told6 and six else None,
    )


def _table_scripts(
    observed: Firewalls,
    networks: Sequence[Network],
    trusted: Collection[str],
    ways: Ways | None,
    ways6: Ways | None,
) -> list[tuple[str, str]]:
    from . import opened_tables
    from .ways import EVERYWHERE

    needed = opened_tables.needed(observed, networks, ways or EVERYWHERE, ways6 or EVERYWHERE)
    return [
        (NFT_TABLE, opened_tables.script(table, needed if str(table) in trusted else ()))
        for table in observed.tables
    ]


# --- firewalld -----------------------------------------------------------------------------------


def _zone_changes(firewalld: Firewalld, bridges: Sequence[str], devices: Collection[str]) -> Iterable[str]:
    """firewall-cmd's options. A bridge that somebody put into another zone stays in it."""
    bound = dict(firewalld.bound)
    for bridge in bridges:
        if bridge not in bound:
            yield f"--zone={firewalld.zone} --change-interface={bridge}"
    for device in sorted(set(devices) - set(bridges) - firewalld.permanent):
        if bound.get(device) == firewalld.zone:
            yield f"--zone={firewalld.zone} --remove-interface={device}"


# --- iptables ------------------------------------------------------------------------------------


class _Chain(NamedTuple):
    policy: str
    """'-' for one that isn't built in."""
    rules: list[str]
    """As after ``-A CHAIN``."""


def script(
    saved: str,
    networks: Sequence[Network],
    bridges: Collection[str] = (),
    published: Collection[str] = (),
    ways: Ways | None = None,
) -> str:
    """From what ``iptables-save -t filter`` says to what ``networks`` need, as input for
    ``iptables-restore --noflush``; '' when it is so already. Without networks all of ours goes.

    ``bridges`` are the bridge devices there are; guests are let out by ``ways`` only, if given.
    """
    chains = _parse(saved)
    ours = {network.bridge for network in networks}
    lines: list[str] = []
    for builtin in BUILTINS:
        place = _place(chains, _Path(builtin, ours, {*bridges} - ours)) if networks else None
        rules: list[str] = []
        if place is not None:
            rules = [*(_forward(networks, ways) if builtin == "FORWARD" else _RULES[builtin](networks))]
        if builtin == "FORWARD" and rules and not (ways and ways.limited):
            rules = [*_inwards(network for network in networks if network.name in published), *rules]
        if not _holds(chains, builtin, place, rules):
            lines += _replace(chains, builtin, place, rules)
    return "".join(f"{line}\n" for line in ("*filter", *lines, "COMMIT")) if lines else ""


def _parse(saved: str) -> dict[str, _Chain]:
    chains: dict[str, _Chain] = {}
    for line in saved.splitlines():
        if line.startswith(":"):
            name, policy, *_ = line[1:].split()
            chains[name] = _Chain(policy, [])
        elif line.startswith("-A "):
            _, name, *rest = line.split(" ", 2)
            chains[name].rules.extend(rest)
    return chains


class _Path(NamedTuple):
    """The way our packets take."""

    builtin: str
    ours: Collection[str]
    others: Collection[str]
    """Bridges that aren't ours."""

    def may_take(self, rule: str) -> bool:
        """Could the rule match packets that we need to pass?"""
        words = rule.split()
        for before, option, value in zip(["", *words], words, words[1:]):
            if before != "!" and self._excludes(option, value):
                return False
        return True

    def _excludes(self, option: str, value: str) -> bool:
        """What comes in, or goes out to guests, does so by our bridges; what is forwarded has its other
        end elsewhere, but in no other bridge."""
        if option in ("-i", "-o") and not value.endswith("+"):
            return value in self.others if self.builtin == "FORWARD" else value not in self.ours
        return (option, value) == ("--ctstate", "INVALID")


def _place(chains: dict[str, _Chain], path: _Path) -> int | None:
    """How many of the other rules come before ours; None if ours aren't needed."""
    if path.builtin not in chains:
        return None
    policy, rules = chains[path.builtin]
    others = [rule for rule in rules if _OURS + path.builtin not in _targets(rule)]
    for index, rule in enumerate(others):
        if _may_drop(chains, [rule], path, set()):
            return index
    return None if policy == "ACCEPT" else len(others)


def _may_drop(chains: dict[str, _Chain], rules: Iterable[str], path: _Path, seen: set[str]) -> bool:
    for target in (target for rule in rules if path.may_take(rule) for target in _targets(rule)):
        if target.startswith(_NO_MATTER) or target in seen or target in _HARMLESS:
            continue
        seen.add(target)
        if target not in chains or _may_drop(chains, chains[target].rules, path, seen):
            return True
    return False


def _targets(rule: str) -> list[str]:
    """The rule's target. More than one if its comment has '-j' in it: better too many than none."""
    words = rule.split()
    return [after for word, after in zip(words, words[1:]) if word in ("-j", "-g")]


def _holds(chains: dict[str, _Chain], builtin: str, place: int | None, rules: Sequence[str]) -> bool:
    """Is our chain as it should be, and entered before anything could drop?"""
    own = _OURS + builtin
    entries = list(_jumps(chains, own))
    if place is None:
        return own not in chains and not entries
    if own not in chains or entries != [(builtin, f"-j {own}")]:
        return False
    in_time = chains[builtin].rules.index(f"-j {own}") <= place
    return in_time and [*map(_plain, chains[own].rules)] == [*map(_plain, rules)]


def _jumps(chains: dict[str, _Chain], own: str) -> Iterable[tuple[str, str]]:
    """(chain, rule) of all that lead to our chain."""
    for name, chain in chains.items():
        yield from ((name, rule) for rule in chain.rules if own in _targets(rule))


def _plain(rule: str) -> str:
    """Without ``-m udp`` and the like, which versions of iptables do or don't write."""
    words = rule.split()
    return " ".join(w for i, w in enumerate(words) if w != "-m" and words[i - 1] != "-m")


def _replace(chains: dict[str, _Chain], builtin: str, place: int | None, rules: Sequence[str]) -> list[str]:
    """The line with the colon makes the chain, or empties it."""
    own = _OURS + builtin
    leave = [f"-D {name} {rule}" for name, rule in _jumps(chains, own)]
    if place is None:
        return [f":{own} - [0:0]", *leave, f"-X {own}"]
    fill = [f"-A {own} {rule}" for rule in rules]
    return [f":{own} - [0:0]", *leave, *fill, f"-I {builtin} {place + 1} -j {own}"]


def fill(
    saved: str, rules: Mapping[str, Sequence[str]], ours: Collection[str], others: Collection[str]
) -> str:
    """As script(), for the ``rules`` of each built-in chain; none where ``ours``, our bridges, are none. ``others`` are
    the bridges of others."""
    chains = _parse(saved)
    lines: list[str] = []
    for builtin in BUILTINS:
        place = _place(chains, _Path(builtin, ours, others)) if ours else None
        wanted = [] if place is None else rules[builtin]
        if not _holds(chains, builtin, place, wanted):
            lines += _replace(chains, builtin, place, wanted)
    return "".join(f"{line}\n" for line in ("*filter", *lines, "COMMIT")) if lines else ""


def device(network: Network) -> str:
    """The network's bridge, as iptables matches it. Raises HostError."""
    return _device(network)


def _input(networks: Iterable[Network]) -> Iterable[str]:
    """DHCP, DNS and ICMP, and answers to the host. Who sends what is checked by table ip loopnet."""
    for network in networks:
        bridge, host = _device(network), f"{network.loop_address(network.host)}/32"
        yield f"-d 255.255.255.255/32 -i {bridge} -p udp -m udp --dport 67 -j ACCEPT"
        for address in network.own_transit:
            match = f"-s {network.transit_prefix} -d {address}/32 -i {bridge}"
            yield f"{match} -p udp -m udp --dport 67 -j ACCEPT"
            yield f"{match} -p udp -m udp --dport 53 -j ACCEPT"
            yield f"{match} -p tcp -m tcp --dport 53 -j ACCEPT"
            yield f"{match} -p icmp -j ACCEPT"
        match = f"-s {network.loop_prefix} -d {host} -i {bridge}"
        if network.mode == NATIVE:  # renewing: dnsmasq gives the bridge's own address as server's
            yield f"{match} -p udp -m udp --dport 67 -j ACCEPT"
        yield f"{match} {REPLIES} -j ACCEPT"


def _forward(networks: Sequence[Network], ways: Ways | None) -> Iterable[str]:
    sides = [(_device(n), f"-s {n.guest_prefix} ", (n.transit_prefix,)) for n in networks]
    return forward(sides, ways)


def forward(sides: Sequence[tuple[str, str, Sequence[object]]], ways: Ways | None) -> Iterable[str]:
    """Out to anywhere but our networks, answers back; among guests where br_netfilter shows it.

    ``sides`` are (bridge, words for guests among themselves, prefixes that are forwarded) of each network. Where the
    host's own traffic may leave by some devices only, that of guests may no more.
    """
    only = [*map(_pattern, ways.open)] if ways and not ways.elsewhere else []
    never = [*map(_pattern, ways.closed)] if ways else []
    into, out = ([f"{option} {device} " for device in only] for option in ("-i", "-o"))
    if not (ways and not ways.elsewhere):
        into, out = [""], [""]
    for bridge, among, prefixes in sides:
        yield f"{among}-i {bridge} -o {bridge} -j ACCEPT"
        yield from (f"-d {prefix} {by}-o {bridge} {REPLIES} -j ACCEPT" for prefix in prefixes for by in into)
    for device in [*(bridge for bridge, _, _ in sides), *never]:
        yield f"-o {device} -j RETURN"
    for bridge, _, prefixes in sides:
        yield from (f"-s {prefix} -i {bridge} {by}-j ACCEPT" for prefix in prefixes for by in out)


def _pattern(device: str) -> str:
    """iptables' way to say that a name begins so."""
    return f"{device[:-1]}+" if device.endswith("*") else device


def _inwards(networks: Iterable[Network]) -> Iterable[str]:
    """To published ports; which these are, table ip loopnet knows, and drops all else."""
    for network in networks:
        match = f"-d {network.transit_prefix} -o {_device(network)}"
        yield f"{match} -m conntrack --ctstate DNAT -j ACCEPT"


def _output(networks: Iterable[Network]) -> Iterable[str]:
    """To guests only: who makes one of them his router has not been asked for here."""
    for network in networks:
        bridge = _device(network)
        yield f"-d {network.loop_prefix} -o {bridge} -j ACCEPT"
        yield f"-d {network.transit_prefix} -o {bridge} -j ACCEPT"
        yield f"-o {bridge} -p udp -m udp --sport 67 --dport 68 -j ACCEPT"


_RULES = {"INPUT": _input, "OUTPUT": _output}


def _device(network: Network) -> str:
    """A '+' at the end means any device that begins so, and iptables has no way to say otherwise."""
    name = network.bridge
    if name.endswith("+") or not name.translate(dict.fromkeys(map(ord, "-_.+@"))).isalnum():
        raise HostError(
            f"bridge {name!r} of network {network.name} has a name that iptables can't match; "
            f"choose another: virsh net-edit {network.name}"
        )
    return name
