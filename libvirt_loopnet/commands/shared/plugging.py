"""Running guests that are not plugged into their active loopnet networks: which, and plugging them in."""

from __future__ import annotations

from collections.abc import Sequence

from ...daemon import runstate
from ...daemon.connection import connect
from ...daemon.domains import LiveNic
from ...guests.interfaces import spare_name
from ...host import linux
from ...networks.conversion.originals import Originals
from ...plugging import bridge_ports
from ...plugging.bridge_ports import Place
from ...plugging.replug import HostPlugs, Left, Outcome, called, cure, replug

Out = tuple[Place, LiveNic]


def places() -> list[Place]:
    """Our active networks that have their bridges."""
    return [
        Place(network.name, network.bridge, spare_name(network.uuid))
        for network in runstate.active_networks()
        if linux.is_device(network.bridge)
    ]


def out_of_place() -> list[Out]:
    """NICs of running guests that belong to our active networks and are not there."""
    return bridge_ports.unplugged(places())


def lacking(out: Out) -> str:
    """What status says of one of them."""
    place, nic = out
    return f"{called(nic)} runs and is not plugged into {place.network}"


def command(out: Out) -> str:
    """What brings it back."""
    _, nic = out
    return "loopnet sync" if nic.driver == "qemu" else cure([nic])


def plugged(nic: LiveNic) -> str:
    """What is said of one that was plugged in again."""
    return f"{called(nic)}: plugged in again"


def unplugged(left: Sequence[Left]) -> str:
    """What is said of those that couldn't be."""
    return f"{'; '.join(map(str, left))}; restart: {cure(each.nic for each in left)}"


def plug_in(uri: str) -> Outcome:
    """Plug in all that is out of place; libvirt, at ``uri``, is asked only where there is something to do.

    Not under the store's lock: libvirt runs hooks that take it. Raises LoopnetError where nothing could be
    tried.
    """
    if not _work():
        return Outcome()
    with Originals().locked(), connect(uri) as connection:
        found = [replug(connection, HostPlugs(), place) for place in _work()]
    return Outcome(
        tuple(nic for outcome in found for nic in outcome.back),
        tuple(left for outcome in found for left in outcome.left),
    )


def _work() -> list[Place]:
    """Places that miss somebody, or where a spare bridge was left."""
    known = places()
    missing = {place for place, _ in bridge_ports.unplugged(known)}
    return [place for place in known if place in missing or linux.is_device(place.spare)]
