"""libvirt's hooks as installed: /etc/libvirt/hooks/{network,qemu}.d/50-loopnet.

Real files, not links, and the package's place written into them: SELinux and AppArmor decide by
the file that libvirt executes (see the comments in hooks/).
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress

from ..errors import ConflictError, HostError
from ..files import state_error

DRIVERS = ("network", "qemu")
DIRECTORY = "/etc/libvirt/hooks"
NAME = "50-loopnet"
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The directory that has libvirt_loopnet/ in it."""

INSTALLED, MISSING, FOREIGN, DEAD = "installed", "missing", "foreign", "dead"
"""State of a hook; dead: it is ours, but not executable or its package is gone."""

_MARK = b"# libvirt-loopnet: "
_PLACEHOLDER = b"\npackage=@PACKAGE@\n"


def path(driver: str, root: str = "", suffix: str = "") -> str:
    """Where the hook for ``driver`` is installed below ``root``."""
    return f"{root}{DIRECTORY}/{driver}.d/{NAME}{suffix}"


def places() -> list[str]:
    """Where the hooks that came with this package may be.

    In a checkout they are beside libvirt_loopnet/; pip puts share/ below the prefix of the Python
    (or virtual environment) that it installs into, distributions and ``make install`` below /usr.
    """
    prefixes = (sys.prefix, os.path.join(sys.prefix, "local"), "/usr/local", "/usr")
    shares = (os.path.join(prefix, "share/libvirt-loopnet/hooks") for prefix in prefixes)
    return list(dict.fromkeys((os.path.join(PACKAGE, "hooks"), *shares)))


def sources() -> str:
    """The first of places() that has them. Raises HostError when there is none."""
    for place in places():
        if all(os.path.isfile(os.path.join(place, driver)) for driver in DRIVERS):
            return place
    raise HostError(f"the hooks are in none of {', '.join(places())}; reinstall libvirt-loopnet")


def text(source: str, driver: str, package: str = PACKAGE) -> bytes:
    """The hook as it is installed, for the libvirt_loopnet/ in ``package``. Raises HostError when ``source``
    isn't such a hook."""
    file = os.path.join(source, driver)
    try:
        data = _read(file) or b""
    except OSError as error:
        raise state_error(file, error) from None
    if data.count(_PLACEHOLDER) != 1 or not _is_ours(data):
        raise HostError(f"{file} is not libvirt-loopnet's hook; reinstall libvirt-loopnet")
    return data.replace(_PLACEHOLDER, b"\npackage=" + os.fsencode(shlex.quote(package)) + b"\n")


def state(driver: str, root: str = "") -> str:
    """What is installed for ``driver``: one of the four words above. Raises StateError."""
    file = path(driver, root)
    try:
        data = _read(file)
    except OSError as error:
        raise state_error(file, error) from None
    if data is None:
        return MISSING
    if not _is_ours(data):
        return FOREIGN
    alive = os.access(file, os.X_OK) and os.path.isfile(f"{_package(data)}/libvirt_loopnet/hook.py")
    return INSTALLED if alive else DEAD


def install(driver: str, data: bytes, root: str = "", suffix: str = "") -> bool:
    """Put the hook in place; False if just that is there already. Raises StateError."""
    file = path(driver, root, suffix)
    # libvirt runs every executable in *.d, so the new file grows up outside of it
    temporary = f"{root}{DIRECTORY}/.{NAME}-{driver}.new"
    try:
        if _read(file) == data and os.access(file, os.X_OK):
            return False
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(temporary, "wb") as target:
            target.write(data)
            os.fchmod(target.fileno(), 0o755)
            target.flush()
            os.fsync(target.fileno())
        os.rename(temporary, file)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise state_error(file, error) from None
    return True


def uninstall(driver: str, root: str = "", suffix: str = "") -> bool:
    """Take the hook away; False if it isn't there. Raises StateError."""
    file = path(driver, root, suffix)
    try:
        os.unlink(file)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise state_error(file, error) from None
    with suppress(OSError):  # others may have hooks there
        os.rmdir(os.path.dirname(file))
    return True


def refuse_foreign(root: str = "") -> None:
    """Raise ConflictError when a file of somebody else has the name of a hook of ours."""
    for driver in DRIVERS:
        if state(driver, root) == FOREIGN:
            file = path(driver, root)
            raise ConflictError(f"{file} is not libvirt-loopnet's; rename it, then try again")


def _read(file: str) -> bytes | None:
    try:
        with open(file, "rb") as source:
            return source.read()
    except FileNotFoundError:
        return None


def _is_ours(data: bytes) -> bool:
    return data.startswith(b"#!") and _MARK in b"\n".join(data.split(b"\n", 2)[:2])


def _package(data: bytes) -> str:
    for line in os.fsdecode(data).splitlines():
        if line.startswith("package="):
            with suppress(ValueError):
                return "".join(shlex.split(line[len("package=") :], comments=True)[:1])
    return ""
