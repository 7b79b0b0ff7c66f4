"""How nft lists our tables: those of the host, and what they would be with rules that are yet to be loaded."""

from __future__ import annotations

from .. import process
from ..errors import HostError, RulesError
from ..ruleset.tables import ALL_TABLES


def listed() -> str:
    """Our tables, '' if there is none. Raises HostError."""
    return without_seen("".join(_list_table(family, table) for family, table in ALL_TABLES))


def foretell(script: str, messages: bytes, acknowledgements: int) -> str:
    """What listed() would say of a host that had but ``script`` and then ``messages`` for netfilter, which bring so
    many acknowledgements. Raises RulesError when they are refused."""
    from .kernel.trial import tried  # not for hooks

    result = process.fork(lambda: tried(script, messages, acknowledgements), "the trial of rules")
    if result.status:
        raise RulesError(result.stderr.decode() or "the trial of rules failed")
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
