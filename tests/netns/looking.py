"""Everything on a host that a network could have changed, and whether it did."""

from __future__ import annotations

import re

import pytest

from tests.sandbox.snapshot import COMMANDS, Snapshot, differences

from .lab import Lab

MORE = r"""
ip -o link show type bridge
grep -sH '' /proc/sys/net/ipv4/* || true # some can only be written
# Of directories the names; of files also when they were written, but for /etc/hosts, which is compared
# itself. The notes that hooks leave for each other may differ as long as there are any.
find /etc /run /var/lib/libvirt \( -path /run/sandbox -o -path /run/checkout -o -path /run/netns \) -prune -o \
    \( -path /etc/hosts -o -path '/run/libvirt-loopnet/*' \) -o \
    -type f -printf '%M %u:%g %s %T@ %p\n' -o -printf '%M %u:%g %p\n' | sort -k 5
"""
MARK = "=== seen by: "
CARRIER = re.compile(r"NO-CARRIER,|,LOWER_UP|state [A-Z]+ | linkdown| tentative")


def look(lab: Lab) -> Snapshot:
    """Everything a network could have changed; the reservations, which are for good, apart."""
    commands = {**COMMANDS, "more": MORE}
    # One shell for all: this is done before and after nearly every test.
    text = lab.host.sh("\n".join(f"echo '{MARK}{name}'\n({text})" for name, text in commands.items()))
    # The state of a bridge follows that of its ports by up to a second.
    parts = (part.partition("\n") for part in CARRIER.sub("", text).split(MARK)[1:])
    return {name: shown for name, _, shown in parts}


def assert_same(before: Snapshot, after: Snapshot) -> None:
    if before != after:  # a diff of what is equal takes longer than all else here
        pytest.fail(f"the host changed:\n{differences(before, after)}", pytrace=False)
