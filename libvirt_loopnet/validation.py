"""Names, MAC addresses and the like as the XML gives them: each is checked before it is used.

They end up in paths, in /etc/hosts, in nft and dnsmasq text. All raise InputError, one line.
"""

from __future__ import annotations

from .errors import InputError

MAX_NAME = 200
"""Bytes; a file name of 255 has to hold the name and a suffix."""
MAX_DEVICE = 15
"""IFNAMSIZ - 1."""
_HEX = frozenset("0123456789abcdef")
_SHOWN = 60


def shown(text: str) -> str:
    """``text`` for an error message: quoted, without line breaks, not too long."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def check_name(name: str) -> str:
    """Return ``name`` if a loopnet network may be called so: it goes into paths and options."""
    rest = name.translate(dict.fromkeys(map(ord, "-_.+")))
    good = rest.isalnum() and (name[0].isalnum() or name[0] == "_")
    if not good or len(name.encode()) > MAX_NAME:
        raise InputError(
            f"network name {shown(name)} must be letters, digits and any of -_.+, and begin with "
            "a letter or digit; rename the network"
        )
    return name


def check_mac(what: str, mac: str) -> str:
    """``mac`` in lower case; ``what`` names its owner."""
    parts = mac.lower().split(":")
    if len(parts) != 6 or not all(len(part) == 2 and _HEX.issuperset(part) for part in parts):
        raise InputError(f"{what}: {shown(mac)} is not a MAC address; write it as 52:54:00:12:34:56")
    return mac.lower()


def check_uuid(what: str, uuid: str) -> str:
    """``uuid`` as libvirt writes it; ``what`` names its owner."""
    digits = uuid.replace("-", "").lower()
    if len(digits) != 32 or not _HEX.issuperset(digits):
        raise InputError(f"{what}: {shown(uuid)} is not a UUID; make one with: uuidgen")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def check_device(what: str, device: str) -> str:
    """Return ``device`` if the kernel takes it as a name (its dev_valid_name) and nft can quote it."""
    bad = not is_quotable(device) or any(char in "/:" or char.isspace() for char in device)
    if bad or device in ("", ".", "..") or len(device.encode()) > MAX_DEVICE:
        raise InputError(
            f"{what}: {shown(device)} can't be a device's name; use at most {MAX_DEVICE} bytes "
            'without any of /:*" or white space'
        )
    return device


def is_quotable(device: str) -> bool:
    """Can nft be given the name? In its quotes there are no escapes, and a '*' is a pattern."""
    return '"' not in device and "*" not in device


def check_domain(what: str, domain: str) -> str:
    """Return ``domain`` if it is a DNS domain in the letters that libvirt's schema allows."""
    labels = domain.split(".")
    plain = [label.replace("-", "a").replace("_", "a") for label in labels]
    if not all(label.isascii() and label.isalnum() for label in plain) or len(domain) > 253:
        raise InputError(
            f"{what}: <domain name={shown(domain)}> is not a DNS domain; use lower-case letters, "
            "digits and '-', with dots between"
        )
    return domain
