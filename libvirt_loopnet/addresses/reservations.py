"""A network's reservations as text; store.py keeps it.

::

    # libvirt-loopnet reservations, version 2
    5 52:54:00:12:34:56 4dea22b3-1d52-d8f3-2516-782e98ab3fa0 vm1 8080:80/tcp,192.0.2.7:53:53/udp
    7 52:54:00:00:00:07 - - -
    # end 2

A line is NUMBER MAC UUID NAME PUBLISHED, '-' for none. Version 1 has no PUBLISHED; version 3 is where
ranges of ports are (8000-8010:8000-8010/tcp), or who may reach them (8080:80/tcp@192.0.2.0/24). Version 4
has one more field, FURTHER: other host numbers, which are the NIC's alone, or shared with other lines
(20,30/shared). The lowest that will do is written, so that those who use none of it can go back to an older
release. The last line counts them, so that a file cut short is seen. A file that isn't what was written is
never repaired or overwritten, since guests would change their addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import InputError, StateError
from ..model import EVERYBODY, Publication, Reservation

_FORMAT = "# libvirt-loopnet reservations, version "
_VERSIONS = {"1": 4, "2": 5, "3": 5, "4": 6}
"""Versions of the format, and how many fields a line has."""
_SHARED = "/shared"
_HEX = frozenset("0123456789abcdef")
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
MEND = "repair it by hand (guests keep their addresses) or move it away (all guests get new ones)"
"""What to do about a damaged file."""


def render(reservations: Iterable[Reservation]) -> str:
    """The text of a file, by host number."""
    ordered = sorted(reservations)
    ports = [port for each in ordered for port in each.published]
    version = "3" if any(map(_is_new, ports)) else "2" if ports else "1"
    version = "4" if any(each.also or each.shared for each in ordered) else version
    lines = [" ".join(_fields(each)[: _VERSIONS[version]]) for each in ordered]
    return "\n".join([_FORMAT + version, *lines, f"# end {len(lines)}", ""])


def _is_new(publication: Publication) -> bool:
    """Could no release read it that knows version 2?"""
    return publication.size > 1 or publication.clients != EVERYBODY


def _fields(reservation: Reservation) -> list[str]:
    number, mac, uuid, name, published, also, shared = reservation
    ports = ",".join(map(str, sorted(published)))
    further = [*map(str, sorted(also)), *(f"{each}{_SHARED}" for each in sorted(shared))]
    return [str(number), mac, uuid or "-", name or "-", ports or "-", ",".join(further) or "-"]


def parse(text: str, path: str) -> tuple[Reservation, ...]:
    """Read the text of a file; ``path`` names it in errors.

    Raises StateError unless it is, line by line, what render() writes.
    """
    lines = text.split("\n")
    fields = _check_frame(lines, path)
    reservations = tuple(
        _parse_line(line, path, index, fields) for index, line in enumerate(lines[1:-2], start=2)
    )
    _check_distinct(reservations, path)
    return reservations


def _check_frame(lines: list[str], path: str) -> int:
    """How many fields its lines have."""
    version = lines[0].removeprefix(_FORMAT)
    if version not in _VERSIONS or version == lines[0]:
        if version.isdigit():
            raise StateError(
                f"{path} has format version {version[:20]}, this libvirt-loopnet knows 1 to 4 only; "
                "upgrade libvirt-loopnet"
            )
        raise StateError(f"{path}: line 1 is not {_FORMAT + '1'!r}; {MEND}")
    if len(lines) < 3 or lines[-1] or not lines[-2].startswith("# end "):
        raise StateError(f"{path} is cut short: its last line is not '# end COUNT'; {MEND}")
    count = len(lines) - 3
    if lines[-2] != f"# end {count}":
        raise StateError(f"{path} has {count} reservations, its last line is {lines[-2][:40]!r}; {MEND}")
    return _VERSIONS[version]


def _parse_line(line: str, path: str, index: int, count: int) -> Reservation:
    fields = line.split(" ")
    if len(fields) == count:
        number, mac, uuid, name = fields[:4]
        published = _published(fields[4]) if count > 4 else ()
        further = _further(fields[5]) if count > 5 else ((), ())
        if (
            published is not None
            and further is not None
            and _is_number(number)
            and _is_mac(mac)
            and _is_uuid(uuid)
            and _is_label(name)
        ):
            owner = "" if uuid == "-" else uuid
            return Reservation(int(number), mac, owner, "" if name == "-" else name, published, *further)
    words = " ".join(("NUMBER", "MAC", "UUID", "NAME", "PUBLISHED", "FURTHER")[:count])
    raise StateError(f"{path}: line {index} is not {words}: {line[:80]!r}; {MEND}")


def _published(text: str) -> tuple[Publication, ...] | None:
    """None unless it is what _fields() writes."""
    if text == "-":
        return ()
    from .publications import parse_publication

    try:
        found = tuple(parse_publication(word) for word in text.split(","))
    except InputError:
        return None
    return found if text == ",".join(map(str, sorted(found))) else None


def _further(text: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """What is its alone, and what is shared; None unless it is what _fields() writes."""
    if text == "-":
        return (), ()
    words = text.split(",")
    shared = [word[: -len(_SHARED)] for word in words if word.endswith(_SHARED)]
    also = words[: len(words) - len(shared)]
    if not all(map(_is_number, [*also, *shared])):
        return None
    numbers = tuple(map(int, also)), tuple(map(int, shared))
    is_sorted = all(list(each) == sorted(set(each)) for each in numbers)
    return numbers if is_sorted and words == [*also, *(each + _SHARED for each in shared)] else None


def _is_number(text: str) -> bool:
    return len(text) < 9 and text.isascii() and text.isdigit() and text[0] != "0"


def _is_mac(text: str) -> bool:
    return len(text) == 17 and text[2::3] == ":::::" and _HEX.issuperset(text.replace(":", ""))


def _is_uuid(text: str) -> bool:
    if text == "-":
        return True
    bare = text.replace("-", "")
    return len(bare) == 32 and len(text) == 36 and _HEX.issuperset(bare)


def _is_label(text: str) -> bool:
    return text == "-" or (0 < len(text) < 64 and text[0] != "-" and _LABEL.issuperset(text))


def _check_distinct(reservations: Sequence[Reservation], path: str) -> None:
    numbers = [number for each in reservations for number in (each.number, *each.also)]
    numbers += {number for each in reservations for number in each.shared}
    macs = [each.mac for each in reservations]
    for what, values in (("host number", numbers), ("MAC address", macs)):
        if len(set(values)) < len(values):
            ordered = sorted(map(str, values))
            twice = next(a for a, b in zip(ordered, ordered[1:]) if a == b)
            raise StateError(f"{path}: {what} {twice} appears twice; {MEND}")
    ports = [port for each in reservations for port in each.published]
    if len(ports) > 1:
        from .publications import clash

        twice_published = clash(ports)
        if twice_published:
            raise StateError(f"{path}: {twice_published} claims a port that is already there; {MEND}")
