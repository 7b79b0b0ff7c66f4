"""What is fuzzed, and what has to hold for each input.

A target takes bytes and returns True when they were accepted; errors for users are LoopnetErrors.
AssertionError, or anything else that comes out, is a fault of ours.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from libvirt_loopnet import cli, config, files
from libvirt_loopnet.addresses import pool, reservations
from libvirt_loopnet.addresses.labels import host_names
from libvirt_loopnet.errors import LoopnetError
from libvirt_loopnet.guests.domains import move_networks, parse_domain
from libvirt_loopnet.host import hosts_file
from libvirt_loopnet.model import Guest, Network, Port, Reservation
from libvirt_loopnet.networks.dnsmasq_options import dnsmasq_options
from libvirt_loopnet.networks.parsing import (
    definition_of,
    hosts_of,
    missing_options,
    parse_hook,
    parse_network,
    parse_port,
)
from libvirt_loopnet.networks.rewrite import rewrite_network
from libvirt_loopnet.ruleset.tables import delete_tables, make_tables
from libvirt_loopnet.xml.tree import parse

from .mutate import Mutator
from .seeds import CONFIGS, DOMAIN, HOSTS, RESERVATIONS, Seeds

MOVES = {"default": "a'b\"&<c>", "loopnet": "moved", "network": "\u65e5\u672c", "": "x"}
LONGEST_MESSAGE = 2000
URIS = ("test:///default", "nosuch:///", "")
"""--connect gets no other: a URI may name a command to be run (libvirt's ``qemu+ext``)."""
READERS = ("rewrite", "rewrite", "rewrite", "ip", "list")
GUARDED = (
    "convert", "revert", "reserve", "release", "publish", "unpublish", "status", "plan", "sync", "cleanup",
    "install-hooks",
)  # fmt: skip
"""Verbs that need root; as anybody else they end before they look at the host."""
OPTIONS = (
    "--loop-prefix",
    "--guest-prefix",
    "--mode",
    "--gateway",
    "--json",
    "--help",
    "--version",
    "-",
    "--",
)


class Target(NamedTuple):
    """``make`` gives one input, ``check`` tells whether it was accepted."""

    name: str
    share: int
    """Of ten inputs, how many; roughly."""
    make: Callable[[Mutator, Seeds], bytes]
    check: Callable[[bytes], bool]


def refused(error: LoopnetError) -> bool:
    """False; a refusal has one line, and not an endless one."""
    message = str(error)
    assert len(message.splitlines()) == 1, f"not one line: {message!r}"
    assert message.strip(), "an empty message"
    assert len(message) < LONGEST_MESSAGE, f"a message of {len(message)} characters"
    assert "report" not in message, message
    return False


def check_hook(data: bytes) -> bool:
    """Standard input of the network hook, up to the text that nft, dnsmasq and /etc/hosts get."""
    try:
        definition, network, port = parse_hook(data)
        if network is None:
            return True
        missing_options(definition, network)
        hosts = hosts_of(definition, network)
        kept: list[Reservation] = []
        for given in hosts:
            if given.mac:
                kept, _ = pool.reserve(network, kept, given.mac, given.uuid, given.name, given.number)
        if port:
            kept, _ = pool.reserve(network, kept, port.mac, port.owner_uuid, port.owner)
            _check_port(port)
    except LoopnetError as error:
        return refused(error)
    guests = [Guest(network.name, each.mac, each.number, each.name) for each in kept]
    assert list(reservations.parse(reservations.render(kept), "x")) == kept
    _check_network(network)
    _check_nft(network, guests)
    hosts_file.render_hosts(b"", host_names([network], guests))
    files.file_name(network.name)
    return True


def _check_network(network: Network) -> None:
    for option in dnsmasq_options(network):
        assert option.isprintable() and " " not in option, f"dnsmasq gets {option!r}"  # noqa: PT018
    assert re.fullmatch(r"[\w.+-]+", network.name), network.name
    assert network.host != network.gateway
    assert network.host in network.guest_numbers
    assert network.gateway in network.guest_numbers


def _check_nft(network: Network, guests: list[Guest]) -> None:
    """No name may end its quotes, or be a pattern, in the text that nft reads as root."""
    text = delete_tables() + make_tables([network], guests, [])
    quoted = set(re.findall(r'"([^"\n]*)"', text)) - {"lo", network.bridge}
    assert not quoted, f"nft gets {quoted}"
    assert re.fullmatch(r'[^"*\n]*', network.bridge), f"nft gets the device {network.bridge!r}"


def _check_port(port: Port) -> None:
    assert re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", port.mac)
    assert re.fullmatch(r"[0-9a-f-]{36}", port.owner_uuid)


def check_domain(data: bytes) -> bool:
    """Standard input of the qemu hook: read, and with its NICs moved."""
    try:
        domain = parse_domain(data)
        moved = move_networks(data, MOVES)
    except LoopnetError as error:
        return refused(error)
    again = parse_domain(moved)
    assert (again.name, again.uuid, len(again.nics)) == (domain.name, domain.uuid, len(domain.nics))
    for before, after in zip(domain.nics, again.nics):
        assert after.network in (before.network, MOVES.get(before.network))
        assert (after.mac, after.tap) == (before.mac, before.tap)
    assert move_networks(moved, MOVES) is moved
    return True


def check_rewrite(data: bytes) -> bool:
    """A definition rewritten: it can be read, and rewriting it again gives the same bytes."""
    try:
        result = rewrite_network(data)
    except LoopnetError as error:
        return refused(error)
    assert parse_network(result.xml) == result.network
    assert missing_options(definition_of(result.xml), result.network) == ()
    parse(result.xml)
    again = rewrite_network(result.xml)
    assert again.xml == result.xml, "rewriting again changes it"
    assert again.network == result.network
    for warning in result.warnings:
        assert len(warning.splitlines()) == 1, f"not one line: {warning!r}"
    _check_network(result.network)
    return True


def check_converted(data: bytes) -> bool:
    """The same with every option, which decide what the definition doesn't."""
    prefixes = IPv4Network("127.77.0.0/24"), IPv4Network("10.77.0.0/24")
    accepted = False
    for mode, guest_prefix in (("mapped", prefixes[1]), ("native", None)):
        try:
            result = rewrite_network(
                data,
                loop_prefix=prefixes[0],
                guest_prefix=guest_prefix,
                mode=mode,
                gateway=1,
                taken=[("other", IPv4Network("127.1.0.0/16"))],
                occupied=[254, 253],
            )
        except LoopnetError as error:
            refused(error)
            continue
        assert (result.network.mode, result.network.loop_prefix) == (mode, prefixes[0])
        assert rewrite_network(result.xml).xml == result.xml
        accepted = True
    return accepted


def check_status(data: bytes) -> bool:
    """Files that libvirt keeps in /run: a network, and a port."""
    accepted = False
    try:
        accepted = parse_network(data) is not None
    except LoopnetError as error:
        refused(error)
    try:
        _check_port(parse_port("loopnet", data))
    except LoopnetError as error:
        return refused(error) or accepted
    return True


def check_config(data: bytes) -> bool:
    """/etc/libvirt-loopnet.conf, and that what it says can be done to a guest."""
    try:
        options = config.parse(data.decode("utf-8", "replace"))
    except LoopnetError as error:
        return refused(error)
    for source, target in options.move:
        xml = DOMAIN.replace(b"'default'", b"'zz'")
        moved = parse_domain(move_networks(xml, {"zz": target})).nics[0].network
        assert moved == target, f"{source!r} is moved to {moved!r}, not {target!r}"
    return True


def check_reservations(data: bytes) -> bool:
    """A file of reservations: refused, or exactly what we write."""
    try:
        text = data.decode("ascii")
        found = reservations.parse(text, "PATH")
    except UnicodeDecodeError:  # Store.load() says so
        return False
    except LoopnetError as error:
        return refused(error)
    if any(each.published for each in found) or "version 1" in text:
        assert reservations.render(found) == text or list(found) != sorted(found)
    return True


def check_names(data: bytes) -> bool:
    """/etc/hosts, whatever stands in it: our block comes, stays and goes, all else is kept."""
    entries = [(IPv4Address("127.1.0.5"), ("vm1.loopnet",)), (IPv4Address("127.1.0.4"), ("b.x", "b"))]
    foreign = hosts_file.render_hosts(data, [])
    new = hosts_file.render_hosts(data, entries)
    assert hosts_file.render_hosts(new, entries) == new
    assert hosts_file.render_hosts(new, []) == foreign
    assert hosts_file.render_hosts(foreign, []) == foreign
    assert _foreign_lines(foreign) == _foreign_lines(data)
    return True


def _foreign_lines(data: bytes) -> list[bytes]:
    """But for empty ones, and carriage returns: the last line's is the block's if that brought a newline."""
    lines = [line.rstrip(b"\r") for line in data.split(b"\n") if b"libvirt-loopnet" not in line]
    return [line for line in lines if line.strip()]


def check_file_name(data: bytes) -> bool:
    """A network's name as a file's, and back."""
    name = data.decode("utf-8", "surrogateescape")
    try:
        encoded = files.file_name(name)
    except LoopnetError as error:
        return refused(error)
    assert re.fullmatch(r"[A-Za-z0-9._%-]+", encoded)
    assert encoded[0] != "."
    assert len(encoded) < 255
    assert files.network_name(encoded) == name
    return True


SEPARATOR = b"\0\0"


def check_command(data: bytes) -> bool:
    """The command line: ``data`` is arguments, NUL between them, then NUL NUL and standard input."""
    head, _, stdin = data.partition(SEPARATOR)
    argv = [word.decode("utf-8", "surrogateescape") for word in head.split(b"\0")]
    if not _is_harmless(argv):
        return False
    status, output, errors = _run(argv, stdin)
    lines = errors.splitlines()
    assert status in (0, 1, 2, 4, 5), f"status {status}: {errors}"
    assert "please report" not in errors, errors
    assert "report this bug" not in errors, errors
    assert all(line.startswith("loopnet: ") for line in lines), errors
    if status in (2, 4, 5):
        assert len(lines) >= 1, "failed without a word"
        assert not output, f"failed, and wrote {output[:200]!r}"
    return status == 0


def _is_harmless(argv: list[str]) -> bool:
    """As nobody, without a libvirt that could be told anything; never as root."""
    if os.geteuid() == 0:
        return False
    for word, following in zip(argv, [*argv[1:], ""]):
        if word == "--connect" and following not in URIS:
            return False
        if word.startswith("--connect=") and word.partition("=")[2] not in URIS:
            return False
    verbs = {"watch", "define", "graph", "doctor", "uninstall-hooks"}
    return verbs.isdisjoint(argv) or "--help" in argv[1:2]


class _Input(io.TextIOWrapper):
    def isatty(self) -> bool:
        return False


def _run(argv: list[str], stdin: bytes) -> tuple[int, bytes, str]:
    before = sys.stdin, sys.stdout, sys.stderr
    output, errors = io.BytesIO(), io.BytesIO()
    sys.stdin = _Input(io.BytesIO(stdin))
    sys.stdout = io.TextIOWrapper(output, encoding="utf-8")
    sys.stderr = io.TextIOWrapper(errors, encoding="utf-8", errors="backslashreplace")
    try:
        status = cli.main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
        return status, output.getvalue(), errors.getvalue().decode()
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def make_command(mutator: Mutator, seeds: Seeds) -> bytes:
    """A command line with odd arguments, and something on its standard input."""
    chance = mutator.chance
    verb = chance.choice((*READERS, chance.choice(GUARDED)))
    argv = [verb.encode()]
    if chance.random() < 0.05:
        argv = [mutator.value()]
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        option = chance.choice(OPTIONS).encode()
        argv += chance.choice(([option, mutator.value()], [option + b"=" + mutator.value()], [option]))
    if verb in ("ip", "list"):
        argv[:0] = [b"--connect", chance.choice(URIS).encode()]
    if verb == "ip" or chance.random() < 0.05:
        argv.append(mutator.value())
    arguments = b"\0".join(word.replace(b"\0", b"") for word in argv)
    stdin = mutator.xml(seeds.networks) if verb == "rewrite" else b""
    return arguments + SEPARATOR + stdin


TARGETS = (
    Target("network-hook", 3, lambda mutator, seeds: mutator.xml(seeds.own), check_hook),
    Target("domain-hook", 2, lambda mutator, seeds: mutator.xml(seeds.domains), check_domain),
    Target("rewrite", 3, lambda mutator, seeds: mutator.xml(seeds.networks), check_rewrite),
    Target("rewrite-options", 1, lambda mutator, seeds: mutator.xml(seeds.networks), check_converted),
    Target("status", 1, lambda mutator, seeds: mutator.xml(seeds.status), check_status),
    Target("config", 1, lambda mutator, _: mutator.text(CONFIGS), check_config),
    Target("reservations", 1, lambda mutator, _: mutator.text(RESERVATIONS), check_reservations),
    Target("names", 1, lambda mutator, _: mutator.text(HOSTS), check_names),
    Target("file-name", 1, lambda mutator, _: mutator.value(), check_file_name),
    Target("command", 1, make_command, check_command),
)
