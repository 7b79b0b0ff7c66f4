"""How nft lists our tables: those of the host, and what they would be with rules that are yet to be loaded."""

from __future__ import annotations

import os

from .. import process
from ..errors import HostError, RulesError
from ..ruleset.tables import ALL_TABLES

# Without taking Python apart again, as in hooks/network
_TRIAL = (
    "import posix, sys; sys.path.insert(0, sys.argv[1]);"
    "from libvirt_loopnet.host.kernel.trial import main; posix._exit(main())"
)


def listed() -> str:
    """Our tables, '' if there is none. Raises HostError."""
    return without_seen("".join(_list_table(family, table) for family, table in ALL_TABLES))


def foretell(script: str, messages: bytes, acknowledgements: int) -> str:
    """What listed() would say of a host that had but ``script`` and then ``messages`` for netfilter, which bring so
    many acknowledgements. Raises RulesError when they are refused."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    python = ["/usr/bin/python3", "-I", "-S", "-c", _TRIAL, root]
    rules = script.encode()
    given = b"%d %d\n" % (len(rules), acknowledgements) + rules + messages
    result = process.run(["unshare", "--net", *python], given)
    if result.status:
        raise RulesError(f"nft refused the rules: {_last_line(result.stderr)}")
    return without_seen(_in_order(result.stdout.decode()))


def without_seen(listing: str) -> str:
    """What nft lists, less what packets have put into sets (ruleset.phrases.seen()), and less how many elements
    nft 1.1.7 says a set has: no rules, those."""
    kept: list[str] = []
    in_set = in_elements = False
    for line in listing.splitlines(keepends=True):
        if line.startswith("\tset "):
            in_set = line.startswith("\tset seen-")
        in_elements = in_elements or (in_set and line.startswith("\t\telements = {"))
        if not in_elements:
            rest, count, _ = line.partition("\t# count ")
            kept.append(f"{rest}\n" if count else line)
        in_elements = in_elements and not line.endswith("}\n")
    return "".join(kept)


def _list_table(family: str, table: str) -> str:
    result = process.run(["nft", "--stateless", "list", "table", family, table])
    if result.status and b"No such file or directory" not in result.stderr:
        raise HostError(f"nft list table {family} {table} failed: {result.complaint}")
    return "" if result.status else result.stdout.decode()


def _in_order(ruleset: str) -> str:
    """The tables of a whole ruleset, which has them as they were made."""
    end = "\n}\n"
    tables = {text.partition(" {\n")[0]: text + end for text in ruleset.split(end) if text}
    return "".join(tables.get(f"table {family} {name}", "") for family, name in ALL_TABLES)


def _last_line(text: bytes) -> str:
    return (text.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
