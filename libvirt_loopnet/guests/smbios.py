"""Puts systemd credentials, which setup.py makes, into a guest's SMBIOS: nothing in its image is changed. Pure.

    <os>… <smbios mode='sysinfo'/></os>
    <sysinfo type='smbios'>
      <oemStrings>
        <entry>io.systemd.credential:NAME=VALUE</entry>        type 11, read by systemd 252 and later
      </oemStrings>
    </sysinfo>

All else in a definition stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConflictError, InputError
from ..validation import shown
from ..xml.document import Document, Node, make, pretty, text_of
from ..xml.tree import local_name
from .setup import SYSCTL_CREDENTIAL, SYSCTL_SETTING


def fragment(strings: Sequence[str]) -> str:
    """The two elements, to be put into a definition by hand."""
    smbios = make("os", {}, make("smbios", {"mode": "sysinfo"}))
    return (pretty(smbios) + pretty(_sysinfo(_oem_strings(strings)))).decode()


def add(definition: bytes, strings: Sequence[str]) -> bytes:
    """``definition`` of a domain with the strings in its SMBIOS; the very same bytes if they are there.

    Raises InputError for what is no domain with an SMBIOS, ConflictError when the definition uses it otherwise.
    """
    document = Document(definition)
    root = document.root
    if root.tag != "domain":
        raise InputError(f"expected <domain>, got <{local_name(root.tag)}>; get it from: virsh dumpxml GUEST")
    name, os = text_of(root, "name"), root.find("os")
    if os is None or text_of(os, "type") != "hvm":
        raise InputError(
            f"guest {shown(name)} is not a virtual machine and has no SMBIOS; use another --format"
        )
    _turn_on(document, name, os)
    info, oem = root.find("sysinfo[@type='smbios']"), root.find("sysinfo[@type='smbios']/oemStrings")
    if info is None:
        document.append(root, _sysinfo(_oem_strings(strings)))
    elif oem is None:
        document.append(info, _oem_strings(strings))
    else:
        _merge(document, name, oem, strings)
    return document.render()


def _turn_on(document: Document, name: str, os: Node) -> None:
    smbios = os.find("smbios")
    if smbios is None:
        document.append(os, make("smbios", {"mode": "sysinfo"}))
    elif smbios.get("mode") == "emulate":
        document.set(smbios, "mode", "sysinfo")
    elif smbios.get("mode") != "sysinfo":
        raise ConflictError(
            f"guest {shown(name)} has <smbios mode={shown(smbios.get('mode', ''))}/>, which takes no strings; "
            "make it mode='sysinfo' with virsh edit, or use another --format"
        )


def _merge(document: Document, name: str, oem: Node, strings: Sequence[str]) -> None:
    """Strings of the same key take the places of old ones; a sysctl.extra of someone else's is not ours."""
    there = {_key(text_of(entry)): entry for entry in oem.findall("entry")}
    for string in strings:
        old = there.get(_key(string))
        if old is None:
            document.append(oem, _entry(string))
        elif _key(string) != SYSCTL_CREDENTIAL:
            if text_of(old) != string:
                document.replace(old, _entry(string))
        elif SYSCTL_SETTING not in text_of(old).partition("=")[2].split("\n"):
            raise ConflictError(
                f"guest {shown(name)} has the credential sysctl.extra already; add the line {SYSCTL_SETTING} "
                "to it with virsh edit"
            )


def _key(string: str) -> str:
    return string.partition("=")[0]


def _entry(string: str) -> Node:
    return make("entry", {}, text=string)


def _oem_strings(strings: Sequence[str]) -> Node:
    return make("oemStrings", {}, *map(_entry, strings))


def _sysinfo(oem: Node) -> Node:
    return make("sysinfo", {"type": "smbios"}, oem)
