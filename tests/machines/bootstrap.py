"""Root file systems of Debian and Ubuntu, made by mmdebstrap from their archives."""

from __future__ import annotations

import os
import re
import shutil
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence

from tests.sandbox.cache import BuildError, built_once, cache_directory, check_room, command, reason

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


def os_release(key: str) -> str:
    """What this machine's /etc/os-release says, '' where it says nothing."""
    with suppress(OSError):
        for line in Path("/etc/os-release").read_text().splitlines():
            if line.startswith(f"{key}="):
                return line.partition("=")[2].strip("'\"")
    return ""


def root(suite: str, packages: Sequence[str], *options: str) -> Path:
    """The root file system of ``suite`` with ``packages``, not to be written to; made when it isn't there yet.

    Raises BuildError.
    """
    wanted = sorted(set(packages))
    machines = cache_directory() / "machines"

    def build(directory: Path) -> Path:
        check_room(machines, NEEDED_MIB)
        bootstrap(suite, wanted, directory / "root", *options)
        return directory / "root"

    try:
        return built_once(f"machines/{suite}", (wanted, options), build)
    except OSError as error:  # a full disk
        raise BuildError(f"can't keep {suite} in {machines}: {error.strerror or error}") from error


def bootstrap(suite: str, packages: Sequence[str], target: Path, *options: str) -> None:
    """Makes a minimal system at ``target``, which must not be there. Raises BuildError, in one line."""
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
    except BuildError as error:
        shutil.rmtree(target, ignore_errors=True)
        check_room(target.parent, NEEDED_MIB)
        raise BuildError(reason(str(error))) from error
    (target / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in sources))


def keys() -> Path:
    """The keys that both distributions' archives are signed with, from the one whose key a machine has."""
    return built_once("machines/keys", (KEYS, KEYS_FROM), _extract_keys)


def _extract_keys(directory: Path) -> Path:
    told: List[str] = []
    for family, suite in KEYS_FROM:
        tree = directory / suite
        try:
            source = f"deb {mirror(family, suite)} {family.lines[0].format(suite=suite)}"
            command(
                ["mmdebstrap", "--mode=root", "--variant=extract", f"--include={','.join(KEYS)}",
                 *_apt_settings(), suite, str(tree), source],
                timeout=BUILD_SECONDS,
            )  # fmt: skip
            return tree / "usr/share/keyrings"
        except BuildError as error:
            told.append(reason(str(error)))
    raise BuildError(f"the archives' keys: {'; '.join(told)}")


def mirror(family: Family, suite: str) -> str:
    """The mirror to use for a suite: one that is asked for, this machine's own, the one beside it.

    Raises BuildError.
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
    raise BuildError(f"no mirror of {family.name} has {suite} ({told}); name one: {variable}=URL make …")


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
