"""NamedTuple and Protocol for what hooks import: typing itself takes longer than Python's start.

Written and checked as typing's own; when run, a NamedTuple class is a collections.namedtuple with the
class's methods, and its annotations, which must be strings (``from __future__ import annotations``),
are but names.
"""

from __future__ import annotations

__all__ = ["NamedTuple", "Protocol"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple, Protocol
else:
    from collections import namedtuple

    Protocol = object

    class _Record(type):
        def __new__(meta, name, bases, members):
            if not bases:  # NamedTuple itself
                return super().__new__(meta, name, bases, members)
            fields = members["__annotations__"]
            defaults = [members.pop(field) for field in fields if field in members]
            plain = namedtuple(name, fields, defaults=defaults)
            return type(name, (plain,), {"__slots__": (), **members})

    class NamedTuple(metaclass=_Record):
        pass
