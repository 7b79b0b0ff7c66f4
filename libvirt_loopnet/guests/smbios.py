"""systemd credentials in a guest's SMBIOS: nothing in its image is changed. Pure.

    <os>… <smbios mode='sysinfo'/></os>
    <sysinfo type='smbios'>
      <oemStrings>
        <entry>io.systemd.credential:NAME=VALUE</entry>        type 11, read by systemd 252 and later
      </oemStrings>
    </sysinfo>

All other bytes of a definition stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConflictError, InputError
from ..validation import shown
from ..xml.edit import escape
from ..xml.editor import Editor
from ..xml.tree import Element, local_name, parse
from .setup import SYSCTL_CREDENTIAL, SYSCTL_SETTING


def fragment(strings: Sequence[str]) -> str:
    """The two elements, to be put into a definition by hand."""
    lines = ["<os>", "  <smbios mode='sysinfo'/>", "</os>", *_sysinfo(strings, "  ")]
    return "\n".join((*lines, ""))


def add(definition: bytes, strings: Sequence[str]) -> bytes:
    """``definition`` of a domain with the strings in its SMBIOS; the very same bytes if they are there.

    Raises InputError for what is no domain with an SMBIOS, ConflictError when the definition uses it otherwise.
    """
    root = parse(definition)
    if root.tag != "domain":
        raise InputError(
            f"expected <domain>, got <{local_name(root.tag)}>; take it from: virsh dumpxml GUEST"
        )
    name, os = root.child_text("name"), root.first("os")
    if os is None or os.child_text("type") != "hvm":
        raise InputError(
            f"guest {shown(name)} is no virtual machine and has no SMBIOS; take another --format"
        )
    editor = Editor(definition, root)
    _turn_on(editor, name, os)
    unit = editor.unit.decode()
    infos = [info for info in root.all("sysinfo") if info.get("type") == "smbios"]
    if not infos:
        editor.append(root, [line.encode() for line in _sysinfo(strings, unit)], 0)
        return editor.apply()
    oem = infos[0].first("oemStrings")
    if oem is None:
        lines = [line.removeprefix(unit).encode() for line in _sysinfo(strings, unit)[1:-1]]
        editor.append(infos[0], lines, 1)
    else:
        _merge(editor, name, oem, strings)
    return editor.apply()


def _turn_on(editor: Editor, name: str, os: Element) -> None:
    smbios = os.first("smbios")
    if smbios is None:
        editor.append(os, [b"<smbios mode='sysinfo'/>"], 1)
    elif smbios.get("mode") == "emulate":
        editor.set_attribute(smbios, "mode", "sysinfo")
    elif smbios.get("mode") != "sysinfo":
        raise ConflictError(
            f"guest {shown(name)} has <smbios mode={shown(smbios.get('mode'))}/>, which takes no strings; "
            "make it mode='sysinfo' with virsh edit, or take another --format"
        )


def _merge(editor: Editor, name: str, oem: Element, strings: Sequence[str]) -> None:
    """Strings of the same key take the places of old ones; a sysctl.extra of someone else's is not ours."""
    there = {_key(entry.text): entry for entry in oem.all("entry")}
    new = []
    for string in strings:
        old = there.get(_key(string))
        if old is None:
            new.append(_entry(string))
        elif _key(string) != SYSCTL_CREDENTIAL:
            editor.replace(old, _entry(string))
        elif SYSCTL_SETTING not in old.text.strip().partition("=")[2].split("\n"):
            raise ConflictError(
                f"guest {shown(name)} has the credential sysctl.extra already; add the line {SYSCTL_SETTING} "
                "to it with virsh edit"
            )
    if new:
        editor.append(oem, new, 2)


def _key(string: str) -> str:
    return string.strip().partition("=")[0]


def _entry(string: str) -> bytes:
    return b"<entry>%s</entry>" % escape(string)


def _sysinfo(strings: Sequence[str], unit: str) -> list[str]:
    return [
        "<sysinfo type='smbios'>",
        f"{unit}<oemStrings>",
        *(f"{unit * 2}{_entry(string).decode()}" for string in strings),
        f"{unit}</oemStrings>",
        "</sysinfo>",
    ]
