"""Preparing a system for a native network with what `loopnet guest-setup` prints, and nothing else."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Iterator, List, NamedTuple, Sequence

from tests.machines.stacks import SYSTEMS
from tests.machines.systems import System, make_disk, put
from tests.sandbox import CHECKOUT
from tests.sandbox.cache import cache_directory, command
from tests.sandbox.domain import derived_mac
from tests.sandbox.world import World

META_DATA = "instance-id: sandbox\nlocal-hostname: guest\n"
NETWORK_CONFIG = """\
version: 2
ethernets:
  nics:
    match: {name: "e*"}
    dhcp4: true
"""


class Piece(NamedTuple):
    """One call of guest-setup, and the file its output becomes."""

    kind: str
    path: str
    mode: int = 0o644
    options: Sequence[str] = ()


def pieces(stack: str, name: str, networks: Sequence[str]) -> List[Piece]:
    """What prepares guest `name` with one NIC on each of `networks`."""
    if stack == "networkd":
        return [
            Piece(
                "networkd", f"/etc/systemd/network/05-{network}.network", 0o644,
                ("--mac", derived_mac(name, nic), network),
            )
            for nic, network in enumerate(networks)
        ]  # fmt: skip
    return {
        "networkmanager": [
            Piece("sysctl", "/etc/sysctl.d/50-loopnet.conf"),
            Piece("networkmanager", "/etc/NetworkManager/dispatcher.d/pre-up.d/50-loopnet", 0o755),
        ],
        "ifupdown": [
            Piece("ifupdown", "/etc/network/if-up.d/loopnet", 0o755),
            Piece("ifupdown", "/etc/dhcp/dhclient-exit-hooks.d/loopnet", 0o755),
        ],
        "dhcpcd": [Piece("ifupdown", "/etc/dhcpcd.exit-hook", 0o755)],
    }[stack]


def setup(world: World, kind: str, *options: str) -> str:
    """What guest-setup prints."""
    return world.host.run(["loopnet", "guest-setup", "--format", kind, *options]).stdout


@contextlib.contextmanager
def prepared(world: World, system: System, stack: str, name: str, networks: Sequence[str]) -> Iterator[Path]:
    """A disk of `system` for a guest with one NIC on each of `networks`."""
    with tempfile.TemporaryDirectory(prefix="prepared-", dir=cache_directory()) as directory:
        tree, disk = Path(directory, "tree"), Path(directory, "disk")
        command(["cp", "-al", str(system.tree), str(tree)])
        if stack == "package":
            command([str(CHECKOUT / "packaging/install-guest"), str(tree)])
            command(["systemctl", f"--root={tree}", "--quiet", "enable", "loopnet-guest.service"])
        else:
            for piece in pieces(stack, name, networks):
                put(tree, piece.path, setup(world, piece.kind, *piece.options), piece.mode)
        make_disk(tree, disk, SYSTEMS[stack].disk_size)
        yield disk


@contextlib.contextmanager
def seed(user_data: str) -> Iterator[Path]:
    """A disk from which cloud-init's NoCloud takes its data."""
    with tempfile.TemporaryDirectory(prefix="seed-", dir=cache_directory()) as directory:
        for name, text in (
            ("meta-data", META_DATA), ("user-data", user_data), ("network-config", NETWORK_CONFIG),
        ):  # fmt: skip
            Path(directory, name).write_text(text)
        image = Path(directory, "seed.iso")
        files = [str(Path(directory, name)) for name in ("meta-data", "user-data", "network-config")]
        command(["genisoimage", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-o", str(image), *files])
        yield image
