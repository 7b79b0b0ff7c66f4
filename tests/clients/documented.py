"""What README and manual have people write into files of other programs: the tests run just that."""

from __future__ import annotations

import re

from tests.sandbox import CHECKOUT

README = CHECKOUT / "README.md"
MANUAL = CHECKOUT / "packaging/man/libvirt-loopnet.7"


def readme(language: str) -> str:
    """The README's only block of code in a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def manual(first_line: str) -> str:
    """The example in libvirt-loopnet(7) that begins with this line."""
    examples = re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    (example,) = (each for each in examples if each.startswith(f"{first_line}\n"))
    return str(example)
