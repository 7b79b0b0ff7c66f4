"""Host names as DNS labels."""

from __future__ import annotations

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
MAX_LENGTH = 63
"""RFC 1035, 2.3.4."""


def dns_label(name: str) -> str:
    """``name`` as one DNS label: a-z, 0-9 and '-', at most 63 of them; '' if nothing is left.

    'Web Server_1.example' gives 'web-server-1-example': a dot would make it two labels.
    """
    label = "".join(char if char in _ALLOWED else "-" for char in name.lower())
    while "--" in label:
        label = label.replace("--", "-")
    return label.strip("-")[:MAX_LENGTH].rstrip("-")
