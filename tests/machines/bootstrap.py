"""Root file systems of Debian and Ubuntu, made by mmdebstrap from their archives."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence

from tests.sandbox.image import ImageError, cache_directory, check_room, command, locked, reason

BUILD_SECONDS = 1200.0
ANSWER_SECONDS = 20.0
NEEDED_MIB = 600
"""What must be free to make a system."""
MERGE_USR = "--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr"
"""For what is older than base-files that bring /bin and /lib as links into /usr."""
OF_MIRRORS = ("Acquire::http::", "Acquire::https::", "Acquire::Check-")
"""Settings of this machine's apt that say how mirrors are reached, and are meant for other systems' as well."""
KEYS = ("debian-archive-keyring", "ubuntu-keyring")


class Family(NamedTuple):
    """A distribution: its folder on mirrors, and what stands behind the mirror in a line of sources.list."""

    name: str
    lines: Sequence[str]
    older: Sequence[str]
    """Its releases that have to be told to merge /usr."""


DEBIAN = Family("debian", ("{suite} main",), ("bullseye", "bookworm"))
UBUNTU = Family("ubuntu", ("{suite} main universe", "{suite}-updates main universe"), ("jammy",))
KEYS_FROM = ((DEBIAN, "trixie"), (UBUNTU, "noble"))
SUITES: Dict[str, Family] = {
    "bookworm": DEBIAN,
    "trixie": DEBIAN,
    "sid": DEBIAN,
    "jammy": UBUNTU,
    "noble": UBUNTU,
}


def root(suite: str, packages: Sequence[str], *options: str) -> Path:
    """The root file system of ``suite`` with ``packages``, not to be written to; made when it isn't there yet.

    Raises ImageError.
    """
    wanted = sorted(set(packages))
    key = hashlib.sha256(repr((wanted, options)).encode()).hexdigest()[:12]
    machines = cache_directory() / "machines"
    place = machines / f"{suite}-{key}"
    try:
        machines.mkdir(parents=True, exist_ok=True)
        with locked(machines / f"{suite}.lock"):
            if not place.exists():
                check_room(machines, NEEDED_MIB)
                with tempfile.TemporaryDirectory(prefix="build-", dir=machines) as build:
                    tree = Path(build) / "root"
                    bootstrap(suite, wanted, tree, *options)
                    tree.rename(place)
    except OSError as error:  # a full disk
        raise ImageError(f"can't keep {suite} in {machines}: {error.strerror or error}") from error
    return place


def bootstrap(suite: str, packages: Sequence[str], target: Path, *options: str) -> None:
    """Makes a minimal system at ``target``, which must not be there. Raises ImageError, in one line."""
    family = SUITES.get(suite, DEBIAN)
    url = mirror(family, suite)
    sources = [f"deb {url} {line.format(suite=suite)}" for line in family.lines]
    own = [*_apt_settings(), *([f"--keyring={keys()}"] if family is UBUNTU else [])]
    own += [MERGE_USR] if suite in family.older else []
    try:
        command(
            ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
             '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io", *own,
             f"--include={','.join(('apt', *packages))}", *options, suite, str(target), *sources],
            timeout=BUILD_SECONDS,
        )  # fmt: skip
    except ImageError as error:
        shutil.rmtree(target, ignore_errors=True)
        check_room(target.parent, NEEDED_MIB)
        raise ImageError(reason(str(error))) from error
    (target / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in sources))


def keys() -> Path:
    """The keys that both distributions' archives are signed with, from the one whose key a machine has."""
    place = cache_directory() / "machines/keys"
    place.parent.mkdir(parents=True, exist_ok=True)
    told: List[str] = []
    with locked(place.with_suffix(".lock")):
        for family, suite in KEYS_FROM:
            if not place.is_dir():
                try:
                    _fetch_keys(family, suite, place)
                except ImageError as error:
                    told.append(reason(str(error)))
    if not place.is_dir():
        raise ImageError(f"the archives' keys: {'; '.join(told)}")
    return place


def _fetch_keys(family: Family, suite: str, place: Path) -> None:
    url = mirror(family, suite)
    with tempfile.TemporaryDirectory(prefix="build-", dir=place.parent) as build:
        tree = Path(build) / "root"
        command(
            ["mmdebstrap", "--mode=root", "--variant=extract", f"--include={','.join(KEYS)}", *_apt_settings(),
             suite, str(tree), f"deb {url} {family.lines[0].format(suite=suite)}"],
            timeout=BUILD_SECONDS,
        )  # fmt: skip
        (tree / "usr/share/keyrings").rename(place)


def mirror(family: Family, suite: str) -> str:
    """The mirror to use for a suite: one that is asked for, this machine's own, the one beside it.

    Raises ImageError.
    """
    variable = f"{family.name.upper()}_MIRROR"
    tried: Dict[str, str] = {}
    for url in [os.environ[variable]] if os.environ.get(variable) else _mirrors(family):
        if url not in tried:
            try:
                with urllib.request.urlopen(f"{url}/dists/{suite}/InRelease", timeout=ANSWER_SECONDS):
                    return url
            except OSError as error:
                tried[url] = str(getattr(error, "reason", None) or error)
    told = "; ".join(f"{url}: {why}" for url, why in tried.items()) or "this machine's sources name none"
    raise ImageError(f"no mirror of {family.name} has {suite} ({told}); name one: {variable}=URL make …")


def _mirrors(family: Family) -> Iterator[str]:
    """Mirrors in this machine's list of sources, the family's own first."""
    urls = _sources()
    for url in urls:
        if url.rstrip("/").endswith(f"/{family.name}"):
            yield url.rstrip("/")
    for url in urls:
        base, _, name = url.rstrip("/").rpartition("/")
        if name in {each.name for each in SUITES.values()}:
            yield f"{base}/{family.name}"


def _apt_settings() -> List[str]:
    """Options that hand on what this machine's apt is told of mirrors."""
    dumped = command(["apt-config", "dump", "--no-empty"]).splitlines()
    return [f"--aptopt={line}" for line in dumped if line.startswith(OF_MIRRORS)]


def _sources() -> List[str]:
    """The addresses in /etc/apt/sources.list and beside it."""
    found: List[str] = []
    apt = Path("/etc/apt")
    for file in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if file.is_file():
            text = file.read_text(errors="replace")
            found += re.findall(r"^(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(https?://\S+)", text, re.MULTILINE)
    return found
