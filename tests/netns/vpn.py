"""A host beside a VPN whose tunnel goes up and down, and what of its guests' traffic is seen on the LAN meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.sandbox import Namespace

from . import killswitches as switches
from .lab import Lab, eventually
from .wire import Capture, Flood, Repeating

CONFIG = "/etc/libvirt-loopnet.conf"
ROUNDS = 50
"""How often a table is made anew."""


class VpnHost:
    """A host with a VPN, whose tunnel isn't up yet and leads into the namespace ``vpn``."""

    def __init__(self, lab: Lab, vpn: Namespace) -> None:
        self.lab, self.vpn = lab, vpn
        self.up = ""

    def connect(self, device: str) -> None:
        switches.tunnel_up(self.lab, device)
        self.up = device

    def disconnect(self) -> None:
        switches.tunnel_down(self.lab, self.up)
        self.up = ""

    def load(self, script: str) -> None:
        self.lab.host.run(["nft", "-f", "-"], input=script)

    def trust(self, *tables: str) -> None:
        names = ", ".join(f'"{table}"' for table in tables)
        self.lab.path(CONFIG).write_text(f"open-firewalls = [ {names} ]\n")

    def sync(self) -> str:
        return self.lab.host.run(["loopnet", "sync"]).stdout


class Leaks(Repeating):
    """Counts the frames of guests on a wire by what they are: ``kind_of`` tells it, '' of others'."""

    def __init__(self, namespace: Namespace, device: str, kind_of: Callable[[bytes], str]) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}
        self._kind_of = kind_of
        self._capture = Capture(namespace, device)

    def __exit__(self, *_: object) -> None:
        time.sleep(0.2)
        super().__exit__()

    def _once(self) -> None:
        frame = self._capture.next(0.05)
        kind = self._kind_of(frame) if frame else ""
        if kind:
            self.seen[kind] = self.seen.get(kind, 0) + 1

    def _end(self) -> None:
        self._capture.__exit__()


@contextmanager
def watching(lab: Lab) -> Iterator[None]:
    process = lab.host.popen(["loopnet", "watch"])
    try:
        yield
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(10) == 0


def listed(lab: Lab, table: str) -> str:
    return lab.host.run(["nft", "list", "table", *table.split()]).stdout


def leaks_beside(
    stage: VpnHost,
    name: str,
    flood: Callable[[threading.Event], AbstractContextManager[Flood]],
    kind_of: Callable[[bytes], str],
    through: set[str],
    rounds: int = ROUNDS,
) -> dict[str, int]:
    """What was seen on the LAN while a guest floods, the tunnel goes up and down, the kill switch ``name`` is made anew
    ``rounds`` times, and once the VPN just dies. Of the flood ``through`` gets out by the tunnel.

    Of a table that relies on the policies of its chains, and ends none of them by a rule, the kernel itself lets
    packets pass in the moment that it is made anew, without loopnet as with it: a new chain's policy becomes drop
    after the old chain is gone (nft_chain_commit_drop_policy() in the kernel's nf_tables_api.c). There the guest
    holds its breath.
    """
    make, device, table = switches.TABLES[name], switches.DEVICES[name], switches.NAMES[name]
    stage.trust(table)
    stage.load(make(""))
    gate = threading.Event()
    gate.set()

    def load(script: str) -> None:
        if name not in switches.ENDED_BY_RULES:
            gate.clear()
            time.sleep(0.05)
        stage.load(script)
        gate.set()

    with watching(stage.lab), Leaks(stage.lab.lan, "lan0", kind_of) as leaks:
        time.sleep(0.5)
        with flood(gate) as flooding:
            for number in range(rounds // 2):
                stage.connect(device)
                load(make(device))
                if number == 0:
                    with Leaks(stage.vpn, "eth0", kind_of) as tunnelled:
                        eventually(lambda: through <= set(tunnelled.seen), 10)
                steps: list[Callable[[], None]] = [lambda: load(make("")), stage.disconnect]
                for step in steps if number % 2 else reversed(steps):
                    step()
            stage.connect(device)
            load(make(device))
            eventually(lambda: "jump loopnet-" in listed(stage.lab, table), 10)
            stage.disconnect()  # and the table stays as it is
            time.sleep(1)
        assert flooding.rounds > 4 * rounds
    return leaks.seen
