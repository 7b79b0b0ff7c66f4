"""One seed -> one input: bytes turned over, or elements, attributes and text of XML."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

LARGEST = 256 << 10
"""Bytes of an input, but for the few that are inflated on purpose."""

VALUES = (
    *(b"", b" ", b"0", b"-1", b"1", b"00", b"+1", b"1e9", b"0x10", b"1_0", b"4294967296"),
    *(b"9" * 30, b"9" * 5000, b"-9" * 20, b"A" * 15, b"A" * 16, b"A" * 70, b"a." * 300, b"A" * 70000),
    *(b"127.0.0.1", b"127.1.0.0", b"127.1.0.254", b"127.1.0.255", b"127.255.255.254", b"10.127.1.1"),
    *(b"0.0.0.0", b"255.255.255.255", b"255.255.255.254", b"255.0.255.0", b"192.168.122.1", b"224.0.0.1"),
    *(b"127.1.0.0/24", b"10.127.1.0/24", b"127.1.0.0/8", b"10.0.0.0/33", b"1.2.3.4/5/6", b"/24", b"::1"),
    *(b"fe80::1%eth0", b"127.1.0.1\n", b"127.01.0.1", b"24", b"8", b"9", b"29", b"30", b"31", b"32", b"33"),
    *(b"open", b"nat", b"route", b"bridge", b"hostdev", b"mapped", b"native", b"all", b"services", b"none"),
    *(
        b"ipv4",
        b"ipv6",
        b"yes",
        b"no",
        b"on",
        b"network",
        b"default",
        b"loopnet",
        b"virbr%d",
        b"virbr1",
        b"lo",
    ),
    *(b"52:54:00:12:34:56", b"FF:FF:FF:FF:FF:FF", b"01:00:5e:00:00:01", b"52-54-00-12-34-56", b"5:4:0:1:3:6"),
    *(b"4dea22b3-1d52-d8f3-2516-782e98ab3fa0", b"4DEA22B31D52D8F32516782E98AB3FA0", b"-" * 36),
    *(
        b".",
        b"..",
        b"../../etc/passwd",
        b"/",
        b"a/b",
        b"-x",
        b"--",
        b"a b",
        b"a\tb",
        b"%s%n",
        b"%00",
        b"%d",
        b"*",
    ),
    *(b"v*", b'a"b', b"a'b", b"$(id)", b"`id`", b"a;b", b"a{b}", b"a\\", b"#", b"a,b", b"a=b", b"[", b"]"),
    *(b"&#0;", b"&#10;", b"&#13;", b"&#9;", b"&#x85;", b"&#x2028;", b"&#xD800;", b"&#x1F4A9;", b"&lt;&amp;"),
    *(b"&quot;", b"&apos;", b"&nosuch;", b"&", b"<", b">", b"]]>", b"&#xFFFE;", b"&#x7f;", b"a&#10;b&#10;c"),
    *(
        "\u00e4\u00f6\u00fc \u65e5\u672c \u202e \U0001f4a9 \u0661\u0662\u00b2".encode(),
        "\u0130\u0131\u1e9e".encode(),
    ),
    *("\u0665".encode(), "\u2028".encode(), "\u0085".encode(), "e\u0301".encode() * 50, "\u00b2".encode()),
    *(
        b"\0",
        b"\x01",
        b"\x7f",
        b"\x80",
        b"\xff\xfe",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\r",
    ),
    *(b"\r\n", b"\n", b"\n\n# end 1", b"\x1b[31m"),
)
"""Nasty as values, and where elements or bytes are put in."""

PIECES = (
    *(b"<!-- -->", b"<!-- <ip/> -- -->", b"<![CDATA[<ip address='x'/>]]>", b"<?pi some='thing'?>", b"]]>"),
    *(b"<ip address='127.1.0.254' prefix='24'/>", b"<ip family='ipv6' address='fd00::1' prefix='64'/>"),
    *(b"<ip address='10.0.0.1' netmask='255.0.255.0'/>", b"<ip/>", b"<name>x</name>", b"<name/>", b"<uuid/>"),
    *(b"<forward mode='nat'><nat><port start='1' end='2'/></nat></forward>", b"<bridge name=''/>", b"<mac/>"),
    *(b"<dns enable='no'/>", b"<dns><host ip='10.0.0.1'><hostname>x</hostname></host></dns>", b"<metadata/>"),
    *(b"<metadata><x:network xmlns:x='https://libvirt-loopnet.org/xml/network/1'/></metadata>", b"<domain/>"),
    *(
        b"<host number='5' mac='52:54:00:00:00:05' name='vm1' xmlns='https://libvirt-loopnet.org/xml/network/1'/>",
    ),
    *(
        b"<dhcp><host mac='52:54:00:00:00:05' name='a' ip='127.1.0.5'/></dhcp>",
        b"<dhcp><bootp file='x'/></dhcp>",
    ),
    *(
        b"<route address='10.9.0.0' prefix='16' gateway='127.1.0.3'/>",
        b"<domain name='loopnet'/>",
        b"<port/>",
    ),
    *(
        b"<o:options xmlns:o='http://libvirt.org/schemas/network/dnsmasq/1.0'><o:option value='a&#10;b'/></o:options>",
    ),
    *(b"<interface type='network'><source network='default'/><mac address='x'/></interface>", b"<devices/>"),
    *(b"<source network='default'/>", b"<target dev='a\"b'/>", b"<owner/>", b"<networkport/>", b"<network/>"),
)

HEADS = (
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"<?xml version='1.0'?>", b"<?xml version='1.1'?>", b"\n\n", b"<?xml?>"),
    *(b"<?xml version='1.0' encoding='UTF-16'?>", b"<?xml version='1.0' encoding='latin1'?>"),
    *(b"<?xml version='1.0' encoding='us-ascii'?>", b"<!DOCTYPE network>"),
    *(b"<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]>", b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'>"),
)

_TOKEN = re.compile(rb"<[^>]*>|[^<]+|<")
_ATTRIBUTE = re.compile(rb"""([\w:.-]+)\s*=\s*("[^"]*"|'[^']*')""")


class Mutator:
    """Makes inputs; the same ``chance`` makes the same ones."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def xml(self, seeds: Sequence[bytes]) -> bytes:
        """One of ``seeds`` changed in one to five places, mostly so that it is still XML."""
        data = self.chance.choice(seeds)
        for _ in range(self.chance.choice((1, 1, 1, 2, 2, 3, 5))):
            data = self._bytes(data) if self.chance.random() < 0.15 else self._element(data, seeds)
        if self.chance.random() < 0.0005:
            data = self._inflate(data)
        return data

    def text(self, seeds: Sequence[bytes]) -> bytes:
        """One of ``seeds`` with bytes and lines changed."""
        data = self.chance.choice(seeds)
        for _ in range(self.chance.choice((1, 1, 2, 3, 5))):
            data = self._line(data) if self.chance.random() < 0.4 else self._bytes(data)
        return data

    def value(self) -> bytes:
        """Something nasty."""
        value = self.chance.choice(VALUES)
        if self.chance.random() < 0.1:
            value += self.chance.choice(VALUES)
        return value

    # --- bytes

    def _bytes(self, data: bytes) -> bytes:
        start = self.chance.randrange(len(data) + 1)
        end = min(len(data), start + self.chance.choice((0, 1, 1, 2, 8, 60, 1000)))
        piece = data[start:end]
        new = (
            b"",
            piece * 2,
            piece + self.value(),
            bytes(self.chance.randrange(256) for _ in range(3)),
            piece[::-1],
            self.value(),
        )
        changed = data[:start] + self.chance.choice(new) + data[end:]
        what = self.chance.random()
        if what < 0.03:
            return changed[:start]
        if what < 0.05:
            return changed.replace(b"\n", b"\r\n")
        return changed[:LARGEST]

    def _line(self, data: bytes) -> bytes:
        lines = data.split(b"\n")
        at, other = self.chance.randrange(len(lines)), self.chance.randrange(len(lines))
        what = self.chance.randrange(5)
        if what == 0:
            del lines[at]
        elif what == 1:
            lines.insert(at, lines[other])
        elif what == 2:
            lines[at], lines[other] = lines[other], lines[at]
        else:
            words = lines[at].split(b" ")
            words[self.chance.randrange(len(words))] = self.value()
            lines[at] = b" ".join(words)
        return b"\n".join(lines)[:LARGEST]

    def _inflate(self, data: bytes) -> bytes:
        """Megabytes of one element; hooks and rewrite have limits."""
        tokens = _TOKEN.findall(data)
        first, last = self._subtree(tokens)
        piece = b"".join(tokens[first:last]) or b"<a/>"
        times = self.chance.choice((1 << 20, 9 << 20)) // len(piece) + 1
        return b"".join((*tokens[:first], piece * times, *tokens[last:]))

    # --- elements

    def _element(self, data: bytes, seeds: Sequence[bytes]) -> bytes:
        tokens: list[bytes] = _TOKEN.findall(data)
        if not tokens:
            return self.value()
        first, last = self._subtree(tokens)
        what = self.chance.random()
        if what < 0.40:
            tokens = self._attribute(tokens)
        elif what < 0.52:
            tokens = self._text(tokens)
        elif what < 0.60:
            del tokens[first:last]
        elif what < 0.68:
            tokens[last:last] = tokens[first:last] * self.chance.choice((1, 1, 1, 2, 100))
        elif what < 0.74:
            tokens = self._moved(tokens, first, last)
        elif what < 0.84:
            tokens.insert(first, self.chance.choice(PIECES))
        elif what < 0.90:
            donor: list[bytes] = _TOKEN.findall(self.chance.choice(seeds))
            one, other = self._subtree(donor)
            tokens[first:first] = donor[one:other]
        elif what < 0.93:
            tokens = self._nested(tokens, first, last)
        elif what < 0.97:
            tokens = self._renamed(tokens)
        else:
            tokens.insert(self.chance.choice((0, 0, first)), self.chance.choice(HEADS))
        return b"".join(tokens)[:LARGEST]

    def _subtree(self, tokens: Sequence[bytes]) -> tuple[int, int]:
        """Where a random element begins and ends; it may be the whole document."""
        starts = [
            at
            for at, token in enumerate(tokens)
            if token[:1] == b"<" and token[1:2] not in (b"/", b"!", b"?")
        ]
        if not starts:
            return 0, 0
        first = self.chance.choice(starts)
        depth = 0
        for at in range(first, len(tokens)):
            token = tokens[at]
            if token[:2] == b"</":
                depth -= 1
            elif token[:1] == b"<" and token[1:2] not in (b"!", b"?") and token[-2:] != b"/>":
                depth += 1
            if depth <= 0:
                return first, at + 1
        return first, len(tokens)

    def _pick(self, tokens: Sequence[bytes], wanted: re.Pattern[bytes]) -> int | None:
        found = [at for at, token in enumerate(tokens) if wanted.match(token)]
        return self.chance.choice(found) if found else None

    def _attribute(self, tokens: list[bytes]) -> list[bytes]:
        at = self._pick(tokens, re.compile(rb"<[^/!?]"))
        if at is None:
            return tokens
        token = tokens[at]
        found = list(_ATTRIBUTE.finditer(token))
        if not found or self.chance.random() < 0.1:
            end = -2 if token.endswith(b"/>") else -1
            name = self.chance.choice(
                (b"mode", b"name", b"mac", b"number", b"x:y", b"prefix", b"xmlns", b"address")
            )
            tokens[at] = token[:end] + b" " + name + b"='" + self.value() + b"'" + token[end:]
            return tokens
        match = self.chance.choice(found)
        quote = match[2][:1]
        what = self.chance.random()
        if what < 0.8:
            new = match[1] + b"=" + quote + self.value().replace(quote, b"") + quote
        elif what < 0.9:
            new = b""
        elif what < 0.95:
            new = match[0] + b" " + match[0]
        else:
            new = match[1] + b" =\n " + match[2].swapcase()
        tokens[at] = token[: match.start()] + new + token[match.end() :]
        return tokens

    def _text(self, tokens: list[bytes]) -> list[bytes]:
        at = self._pick(tokens, re.compile(rb"\s*[^<\s]"))
        if at is not None:
            tokens[at] = self.chance.choice((self.value(), tokens[at] + self.value(), b""))
        return tokens

    def _moved(self, tokens: list[bytes], first: int, last: int) -> list[bytes]:
        piece = tokens[first:last]
        del tokens[first:last]
        at = self.chance.randrange(len(tokens) + 1)
        return tokens[:at] + piece + tokens[at:]

    def _nested(self, tokens: list[bytes], first: int, last: int) -> list[bytes]:
        depth = self.chance.choice((1, 1, 2, 60, 70, 10000))
        name = self.chance.choice((b"a", b"network", b"metadata", b"hookData", b"domain", b"dhcp"))
        tokens[last:last] = [b"</" + name + b">"] * depth
        tokens[first:first] = [b"<" + name + b">"] * depth
        return tokens

    def _renamed(self, tokens: list[bytes]) -> list[bytes]:
        names = sorted(set(re.findall(rb"</?([\w:]+)", b"".join(tokens))))
        if not names:
            return tokens
        old = self.chance.choice(names)
        new = self.chance.choice((*names, b"x:" + old, b"A" * 300, "\u00e4".encode(), old + b"1"))
        pattern = re.compile(rb"(</?)" + re.escape(old) + rb"(?=[\s/>])")
        return [pattern.sub(lambda match: match[1] + new, token) for token in tokens]
