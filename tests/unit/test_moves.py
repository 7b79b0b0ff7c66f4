"""Rules as netlink messages: their text, their places. What the kernel makes of them: tests/netns."""

from __future__ import annotations

import struct
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvirt_loopnet.model import MODES, NATIVE
from libvirt_loopnet.ruleset import moves
from libvirt_loopnet.ruleset.tables import make_tables
from tests.unit.test_plan import network

PREFIXES = st.builds(
    lambda number, length: IPv4Network((number, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
MOVES = st.builds(
    moves.Move,
    chain=st.sampled_from(["quoted-to-127.1.0.0", "both-to-loop-127.1.0.0"]),
    header=st.sampled_from([moves.NETWORK_HEADER, moves.TRANSPORT_HEADER]),
    offset=st.integers(0, 255),
    addresses=st.integers(1, 2),
    old=PREFIXES,
    new=PREFIXES,
)


@given(MOVES)
def test_text_and_back(move: moves.Move) -> None:
    assert moves.parse(str(move)) == move


@pytest.mark.parametrize("mode", MODES)
def test_every_move_has_its_chain(mode: str) -> None:
    made = network(1, mode)
    text = make_tables([made], [], [])
    for move in moves.moves(made):
        assert text.count(f"\tchain {move.chain} {{") == 1
    chains = {move.chain for move in moves.moves(made)}
    unused = {"quoted-host-127.1.0.0", "both-to-loop-127.1.0.0"} if mode == NATIVE else set()
    assert set(chains_of(text, "quoted-") + chains_of(text, "both-")) == chains | unused


def chains_of(text: str, kind: str) -> list[str]:
    heads = [line.split()[1] for line in text.splitlines() if line.strip().startswith("chain ")]
    return [name for name in heads if name.startswith(kind)]


@given(st.lists(MOVES, max_size=5))
def test_a_batch_is_whole_messages(needed: list[moves.Move]) -> None:
    """Begin, a rule for each move, end; lengths and sequence numbers add up (linux/netlink.h)."""
    data, answers = moves.batch(needed)
    kinds, numbers, offset = [], [], 0
    while offset < len(data):
        length, kind, _, sequence = struct.unpack_from("=IHHI", data, offset)
        kinds.append(kind)
        numbers.append(sequence)
        offset += length
    assert offset == len(data)
    assert answers == len(needed) == len(kinds) - 2
    assert numbers == list(range(1, len(kinds) + 1))
