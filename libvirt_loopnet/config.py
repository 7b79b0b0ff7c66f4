"""/etc/libvirt-loopnet.conf -> Options.

The syntax is that of libvirt's own .conf files: ``# comment``, ``key = "value"``, and lists
``key = ["a", "b"]``, also over several lines; a plain word may stand without quotes. Whatever is
not understood is an error: a setting that is silently ignored is worse than none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from .errors import InputError
from .model import Options
from .records import NamedTuple
from .validation import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PATH = "/etc/libvirt-loopnet.conf"

_CHOICES = {"lo": ("shrink", "keep"), "names": ("hosts", "off"), "lease-addresses": ("loop", "guest")}
_EXAMPLES = {
    "lo": '"shrink"',
    "names": '"hosts"',
    "lease-addresses": '"loop"',
    "move": '[ "default:loopnet" ]',
    "open-firewalls": '[ "inet mullvad" ]',
}
_KEYS = tuple(_EXAMPLES)
OF_IPTABLES = tuple(
    f"{family} {table}"
    for family in ("ip", "ip6")
    for table in ("filter", "nat", "mangle", "raw", "security")
)
"""Where iptables-nft keeps its rules. It is spoken to unasked, and can't list what nft has put there."""


class _Token(NamedTuple):
    line: int
    text: str
    quoted: bool


class _Setting(NamedTuple):
    line: int
    values: list[str]
    is_list: bool


def load(path: str = PATH) -> Options:
    """Read the configuration; the defaults if there is no file.

    Raises InputError naming file and line when it can't be read or anything in it is wrong.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return Options()
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise InputError(f"{path} can't be read: {reason}; make it a readable file") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None
    return parse(text, path)


def parse(text: str, path: str = PATH) -> Options:
    """Read the text of a configuration; ``path`` names it in errors. Raises InputError."""
    settings = _Parser(text, path).run()
    return Options(
        lo=_choice(settings, "lo", Options().lo, path),
        names=_choice(settings, "names", Options().names, path),
        lease_addresses=_choice(settings, "lease-addresses", Options().lease_addresses, path),
        move=_moves(settings.get("move"), path),
        open_firewalls=_tables(settings.get("open-firewalls"), path),
    )


class _Parser:
    """Walks over the tokens of a configuration; ``settings`` grows by key."""

    def __init__(self, text: str, path: str) -> None:
        self.path = path
        self.tokens = list(_tokens(text, path))
        self.position = 0
        self.settings: dict[str, _Setting] = {}

    def run(self) -> dict[str, _Setting]:
        while self.position < len(self.tokens):
            key = self.tokens[self.position]
            self.position += 1
            self._check_key(key)
            self.settings[key.text] = self._setting(key)
            self._check_end()
        return self.settings

    def _check_key(self, key: _Token) -> None:
        if key.quoted or key.text not in _KEYS:
            known = ", ".join(_KEYS)
            _fail(self.path, key.line, f"unknown setting {shown(key.text)}; the settings are: {known}")
        if key.text in self.settings:
            first = self.settings[key.text].line
            _fail(self.path, key.line, f"{key.text} is set in line {first} already; remove one")

    def _setting(self, key: _Token) -> _Setting:
        self._next(key, "=", key.line)
        first = self._next(key, "[", key.line, value=True)
        if _is_value(first):
            return _Setting(key.line, [first.text], False)
        return _Setting(key.line, self._list(key), True)

    def _list(self, key: _Token) -> list[str]:
        values: list[str] = []
        token = self._next(key, "]", value=True)
        while _is_value(token):
            values.append(token.text)
            token = self._next(key, "],")
            if _is(token, ","):  # libvirt allows a comma before the closing bracket
                token = self._next(key, "]", value=True)
        return values

    def _next(self, key: _Token, marks: str, line: int = 0, value: bool = False) -> _Token:
        """The next token: one of ``marks``, or a value if allowed; in ``line`` unless that is 0."""
        token = self.tokens[self.position] if self.position < len(self.tokens) else None
        right = token and (_is(token, *marks) or (value and _is_value(token)))
        if not token or not right or (line and token.line != line):
            example = f"{key.text} = {_EXAMPLES[key.text]}"
            _fail(self.path, line or key.line, f"{key.text} has no valid value; write {example}")
        self.position += 1
        return token

    def _check_end(self) -> None:
        if self.position < len(self.tokens):
            token, last = self.tokens[self.position], self.tokens[self.position - 1]
            if token.line == last.line:
                _fail(
                    self.path,
                    token.line,
                    f"{shown(token.text)} follows the value; put the whole value in quotes",
                )


def _is(token: _Token, *marks: str) -> bool:
    return token.text in marks and not token.quoted


def _is_value(token: _Token) -> bool:
    return not _is(token, *"=[],")


def _tokens(text: str, path: str) -> Iterator[_Token]:
    for number, line in enumerate(text.split("\n"), start=1):
        position = 0
        while position < len(line):
            character = line[position]
            if character.isspace():
                position += 1
            elif character == "#":
                break
            else:
                token = _token(line, position, number, path)
                yield token
                position += len(token.text) + 2 * token.quoted


def _token(line: str, start: int, number: int, path: str) -> _Token:
    character = line[start]
    if character in "=[],":
        return _Token(number, character, False)
    if character in "\"'":
        end = line.find(character, start + 1)
        if end < 0:
            _fail(path, number, f"{character} is never closed; add it at the end of the value")
        return _Token(number, line[start + 1 : end], True)
    end = start
    while end < len(line) and not line[end].isspace() and line[end] not in "=[],#\"'":
        end += 1
    return _Token(number, line[start:end], False)


def _choice(settings: dict[str, _Setting], key: str, default: str, path: str) -> str:
    setting = settings.get(key)
    if setting is None:
        return default
    choices = _CHOICES[key]
    if setting.is_list or setting.values[0] not in choices:
        given = f"{setting.values!r:.60}" if setting.is_list else shown(setting.values[0])
        _fail(path, setting.line, f"{key} can't be {given}; it must be one of: {', '.join(choices)}")
    return setting.values[0]


def _moves(setting: _Setting | None, path: str) -> tuple[tuple[str, str], ...]:
    if setting is None:
        return ()
    pairs = setting.values if setting.is_list else setting.values[0].split()
    moves = tuple(_move(pair, setting.line, path) for pair in pairs)
    sources = [source for source, _ in moves]
    for source in sources:
        if sources.count(source) > 1:
            _fail(path, setting.line, f"move names {shown(source)} twice as FROM; remove one of the two")
    return moves


def _move(pair: str, line: int, path: str) -> tuple[str, str]:
    source, _, target = pair.partition(":")
    unfit = any(char < " " or char in "\ufffe\uffff" for char in pair)  # what XML can't hold
    if unfit or not source or not target or ":" in target or source == target:
        _fail(path, line, f"move can't be {shown(pair)}; write \"FROM:TO\", two networks' names")
    return source, target


def _tables(setting: _Setting | None, path: str) -> tuple[str, ...]:
    if setting is None:
        return ()
    tables = tuple(_table(text, setting.line, path) for text in setting.values if text or setting.is_list)
    for table in tables:
        if tables.count(table) > 1:
            _fail(path, setting.line, f"open-firewalls names {shown(table)} twice; remove one of the two")
    return tables


def _table(text: str, line: int, path: str) -> str:
    """As nft writes it: which names it takes, its scanner.l says."""
    family, _, name = " ".join(text.split()).partition(" ")
    plain = name.translate(dict.fromkeys(map(ord, "_-./"), "a"))
    sound = plain.isascii() and plain.isalnum() and (name[0].isalpha() or name[0] == "_") and len(name) < 256
    if family not in ("inet", "ip", "ip6") or not sound:
        what = "a table of nft, family (inet, ip or ip6) and name"
        _fail(path, line, f'open-firewalls can\'t be {shown(text)}; write {what}: "inet mullvad"')
    if name == "loopnet":
        _fail(path, line, f"open-firewalls can't be {shown(text)}, which is our own table; leave it out")
    if f"{family} {name}" in OF_IPTABLES:
        _fail(path, line, f"open-firewalls can't be {shown(text)}, a table of iptables; leave it out")
    return f"{family} {name}"


def _fail(path: str, line: int, why: str) -> NoReturn:
    raise InputError(f"{path}:{line}: {why}")
