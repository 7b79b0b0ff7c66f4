"""The attacks of the matrix that are made in IPv6; test_security.py runs them with all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from . import frames, frames6
from .arena import ANY_PORT, GUEST_PORT, INTERNET6, LAN6, PUBLISHED_PORT, STRANGE_MAC, UPLINK6, Arena
from .lab import LabGuest

NICS = ("bound", "loose", "early")
PUBLISHED = "a published port, by IPv6"
HOST, GUEST, TABLES = "host's services, by IPv6", "another guest, by IPv6", "neighbour tables of IPv6"


class Add(Protocol):
    """test_security.add()"""

    def __call__(
        self,
        who: str,
        what: str,
        action: str,
        target: str,
        attack: Callable[[Arena], object],
        *,
        bites: tuple[str, ...] = ("mapped",),
        skip_free: bool = False,
    ) -> None: ...


Address = Callable[[Arena], str]
SOURCES: dict[str, tuple[str, Address]] = {
    "gateway": ("the gateway", lambda arena: arena.gateway6),
    "host-link-local": ("the host's fe80 address", lambda arena: arena.bridge_link_local),
    "host-number": ("the host number", lambda arena: str(arena.net.model.ipv6_address(254))),
    "prefix": ("the network's own address", lambda arena: str(arena.net.model.ipv6_address(0))),
    "guest": ("another guest", lambda arena: arena.victim.ipv6),
    "guest-link-local": (
        "another guest's fe80 address",
        lambda arena: str(frames.link_local(arena.victim.mac)),
    ),
    "asleep": ("a guest that does not run", lambda arena: arena.asleep.ipv6),
    "free": ("an address that nobody has reserved", lambda arena: arena.free.ipv6),
    "stranger": ("a guest of another network", lambda arena: arena.stranger.ipv6),
    "uplink": ("the host's LAN address", lambda arena: UPLINK6),
    "internet": ("an internet address", lambda arena: INTERNET6),
    "other-ula": ("an address of another ULA prefix", lambda arena: "fdff::5"),
    "nobody": ("::", lambda arena: "::"),
    "localhost": ("::1", lambda arena: "::1"),
}
NOT_BITING = ("gateway", "host-link-local", "uplink", "nobody", "localhost", "internet", "other-ula")
"""What the kernel itself does not take, or has nowhere to send an answer."""


def attacker_of(arena: Arena, who: str) -> LabGuest:
    guest = getattr(arena, who)
    assert isinstance(guest, LabGuest)
    return guest


def services(places: set[str]) -> set[str]:
    return {place for place in places if " from " in place}


def forged_source(who: str, source: Address) -> Callable[[Arena], object]:
    def attack(arena: Arena) -> object:
        me = attacker_of(arena, who)
        for destination in (arena.gateway6, arena.bridge_link_local, UPLINK6):
            arena.datagram6(me, source(arena), destination, ANY_PORT)
        return services(arena.reached())

    return attack


def forged_source_to_guest(who: str, source: Address) -> Callable[[Arena], object]:
    def attack(arena: Arena) -> object:
        me, victim = attacker_of(arena, who), arena.victim
        arena.datagram6(me, source(arena), victim.ipv6, GUEST_PORT, to_mac=victim.mac)
        return arena.reached() & {victim.name}

    return attack


TARGETS: dict[str, tuple[str, str, Address]] = {
    "other-gateway": (
        "another network's gateway", HOST, lambda arena: str(arena.other_net.model.ipv6_own[0]),
    ),
    "stranger": ("another network's guest", "guest of another network, by IPv6", lambda arena: arena.stranger.ipv6),
    "guest-by-gateway": ("a guest, by the router", GUEST, lambda arena: arena.victim.ipv6),
}  # fmt: skip


def honest(who: str, target: Address) -> Callable[[Arena], object]:
    def attack(arena: Arena) -> object:
        me = attacker_of(arena, who)
        for port in (ANY_PORT, GUEST_PORT):
            arena.datagram6(me, me.ipv6, target(arena), port)
        return arena.reached()

    return attack


CLAIMS = ("gateway", "host-link-local", "guest", "guest-link-local", "asleep", "stranger", "internet")
CLAIM_NAMES = {
    "gateway": "the gateway", "host-link-local": "the host's fe80 address", "guest": "another guest",
    "guest-link-local": "another guest's fe80 address", "asleep": "a guest that does not run",
    "stranger": "a guest of another network", "internet": "an internet address",
}  # fmt: skip


def target_of(arena: Arena, claim: str) -> str:
    """What is claimed of the guest that is not the one to hear it."""
    friend = {"guest": arena.friend.ipv6, "guest-link-local": str(frames.link_local(arena.friend.mac))}
    return friend.get(claim) or SOURCES[claim][1](arena)


def advertises(who: str, claim: str) -> Callable[[Arena], object]:
    """To the host, to the victim, and to all; from its own addresses, and from the one that it claims."""

    def attack(arena: Arena) -> object:
        arena.prime6()
        me, victim = attacker_of(arena, who), arena.victim
        target = target_of(arena, claim)
        for source in (me.ipv6, str(frames.link_local(me.mac)), target):
            for to_mac, to in (
                (arena.bridge_mac, arena.gateway6), (victim.mac, victim.ipv6), (frames.ALL_NODES, "ff02::1"),
            ):  # fmt: skip
                for link in (me.mac, STRANGE_MAC):
                    packet = frames6.advertisement(source, to, target, link)
                    arena.send(me, frames.ethernet(me.mac, to_mac, frames.IP6, packet))
        return arena.poisoned6(me)

    return attack


def solicits(who: str, claim: str) -> Callable[[Arena], object]:
    """The source of a question, and its link-layer address, go into the tables of who is asked (RFC 4861, 7.2.3)."""

    def attack(arena: Arena) -> object:
        arena.prime6()
        me, victim = attacker_of(arena, who), arena.victim
        source = target_of(arena, claim)
        for to_mac, asked in ((arena.bridge_mac, arena.gateway6), (victim.mac, victim.ipv6)):
            packet = frames6.solicitation(source, asked, me.mac, asked)
            arena.send(me, frames.ethernet(me.mac, to_mac, frames.IP6, packet))
        return arena.poisoned6(me)

    return attack


def is_alone_with(who: str, claim: str) -> Callable[[Arena], object]:
    """Who looks for an address of its own hears that another has begun to, and gives it up (RFC 4862, 5.4.3)."""

    def attack(arena: Arena) -> object:
        me, target = attacker_of(arena, who), target_of(arena, claim)
        packet = frames6.solicitation("::", target, nonce=arena.token)
        arena.send(me, frames.ethernet(me.mac, frames.ALL_NODES, frames.IP6, packet))
        return arena.reached() & {arena.victim.name, arena.friend.name}

    return attack


LAN_SOURCES: dict[str, tuple[str, Address]] = {
    "itself": ("itself", lambda arena: LAN6),
    "guest": ("a guest", lambda arena: arena.friend.ipv6),
    "gateway": ("the gateway", lambda arena: arena.gateway6),
}
LAN_TARGETS: dict[str, tuple[str, Address, int]] = {
    "guest": ("a guest", lambda arena: arena.victim.ipv6, GUEST_PORT),
    "gateway": ("the gateway", lambda arena: arena.gateway6, ANY_PORT),
}


def from_lan(source: Address, target: Address, port: int) -> Callable[[Arena], object]:
    def attack(arena: Arena) -> object:
        arena.lan_datagram6(source(arena), target(arena), port)
        return arena.reached() - {"lan"}

    return attack


def lan_forges(source: Address) -> Callable[[Arena], object]:
    def attack(arena: Arena) -> object:
        arena.lan_datagram6(source(arena), UPLINK6, ANY_PORT)
        return services(arena.reached())

    return attack


def to_published(who: str, source: Address) -> Callable[[Arena], object]:
    """By the addresses of the host that lead to it, from the LAN at least, and past the host."""

    def attack(arena: Arena) -> object:
        me = attacker_of(arena, who)
        for destination, port in (
            (UPLINK6, PUBLISHED_PORT), (arena.gateway6, PUBLISHED_PORT), (arena.victim.ipv6, GUEST_PORT),
        ):  # fmt: skip
            arena.datagram6(me, source(arena), destination, port)
        return arena.reached()

    return attack


def published_from_lan(arena: Arena) -> object:
    """As what nobody on the LAN is; and to what isn't published, by the guest's own address."""
    for source in (arena.friend.ipv6, arena.gateway6, arena.stranger.ipv6):
        arena.lan_datagram6(source, UPLINK6, PUBLISHED_PORT)
    for destination in (arena.victim.ipv6, arena.friend.ipv6, arena.gateway6):
        for port in (PUBLISHED_PORT, GUEST_PORT):
            arena.lan_datagram6(LAN6, destination, port)
    return arena.reached() - {"lan"}


def add_all(add: Add) -> None:
    """Add the cases."""
    for who in NICS:
        for name, (what, source) in SOURCES.items():
            add(
                who, f"forges-ipv6-source-{name}", f"sends as {what}", HOST, forged_source(who, source),
                skip_free=name == "free" and who != "early", bites=() if name in NOT_BITING else ("mapped",),
            )  # fmt: skip
            if who != "early":
                add(
                    who, f"forges-ipv6-source-{name}-to-guest", f"sends as {what}", GUEST,
                    forged_source_to_guest(who, source), skip_free=name == "free",
                )  # fmt: skip
        for name, (what, target, where) in TARGETS.items():
            add(who, f"reaches-by-ipv6-for-{name}", f"sends to {what}", target, honest(who, where))
        for name, (what, source) in SOURCES.items():
            add(who, f"reaches-published-by-ipv6-as-{name}", f"sends as {what}", PUBLISHED,
                to_published(who, source), skip_free=name == "free" and who != "early", bites=())  # fmt: skip
    add("lan", "reaches-published-by-ipv6", "sends as guests and gateway, and to a guest's own address", PUBLISHED,
        published_from_lan, bites=())  # fmt: skip
    for who in ("bound", "loose"):
        for claim in CLAIMS:
            what = CLAIM_NAMES[claim]
            add(who, f"advertises-{claim}", f"says by neighbour discovery that it is {what}", TABLES,
                advertises(who, claim))  # fmt: skip
            add(who, f"solicits-as-{claim}", f"asks by neighbour discovery as {what}", TABLES,
                solicits(who, claim))  # fmt: skip
            add(who, f"detects-{claim}", f"asks whether it may be {what}", GUEST, is_alone_with(who, claim))
    for name, (what, source) in LAN_SOURCES.items():
        for to, (whom, destination, port) in LAN_TARGETS.items():
            add("lan", f"reaches-by-ipv6-as-{name}-for-{to}", f"sends as {what} to {whom}, by IPv6", whom,
                from_lan(source, destination, port))  # fmt: skip
        if name != "itself":
            add(
                "lan",
                f"forges-ipv6-source-{name}",
                f"sends as {what} to the LAN address",
                HOST,
                lan_forges(source),
            )
