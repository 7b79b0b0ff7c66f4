"""libvirt with its modular daemons, which Debian and Ubuntu don't ship: built from Debian's source.

Not optimised, and with no more than guests in networks need: about a minute on two cores. Debian 13's version,
whichever system this is; the packages to build it with are in tests/install-deps.
"""

from __future__ import annotations

from pathlib import Path

from tests.sandbox.cache import BuildError, built_once, command

from .source import debian_tarball, libraries

SUITE, VERSION = "trixie", "11.3.0"
ON = ("driver_remote", "driver_libvirtd", "driver_qemu", "driver_network", "libnl", "capng", "attr", "json_c")
SETTINGS = (
    "--buildtype=plain", "--auto-features=disabled", "--prefix=/usr", "--sysconfdir=/etc", "--localstatedir=/var",
    "-Drunstatedir=/run", "-Dinit_script=none", "-Dno_git=true", "-Dqemu_user=root", "-Dqemu_group=root",
    *(f"-D{name}=enabled" for name in ON),
)  # fmt: skip
LEFT_OUT = {"cc.get_supported_arguments(cc_flags)": "[]", "subdir('examples')\n": ""}
"""Parts of its recipe, and what stands there instead: its warnings cost gcc a fifth of its time."""
BUILD_SECONDS = 1200.0


def built() -> Path:
    """Its /usr, made when the cache has none; to be laid over a sandbox's. Raises BuildError."""
    return built_once(f"libvirt-{VERSION}", (SETTINGS, libraries()), _build)


def fetched(directory: Path) -> Path:
    """The tarball that its source came in. Raises BuildError."""
    return debian_tarball("libvirt", SUITE, directory)


def _build(directory: Path) -> Path:
    archive = fetched(directory / "fetched")
    if f"_{VERSION}.orig" not in archive.name:
        raise BuildError(
            f"{SUITE} has {archive.name}, not libvirt {VERSION}; change tests/machines/libvirt.py"
        )
    # Not by Python, which takes seven times as long.
    unneeded = [f"--exclude=*/{name}/*" for name in ("docs/manpages", "tests")]
    command(["tar", "-xf", str(archive), "-C", str(directory), *unneeded], timeout=BUILD_SECONDS)
    source, build = directory / f"libvirt-{VERSION}", directory / "build"
    (source / "po/LINGUAS").write_text("")  # what it says in 50 languages
    recipe = (source / "meson.build").read_text()
    for part, instead in LEFT_OUT.items():
        recipe = recipe.replace(part, instead)
    (source / "meson.build").write_text(recipe)
    place = f"--libdir=lib/{libraries().split()[0]}"
    command(["meson", "setup", *SETTINGS, place, str(build), str(source)], timeout=BUILD_SECONDS)
    command(["ninja", "-C", str(build)], timeout=BUILD_SECONDS)
    install = ["meson", "install", "-C", str(build), "--no-rebuild", "--quiet"]
    command(["env", f"DESTDIR={directory}/installed", *install], timeout=BUILD_SECONDS)
    return directory / "installed/usr"
