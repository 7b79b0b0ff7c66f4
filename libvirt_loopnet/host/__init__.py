"""The only code that touches the machine."""

from __future__ import annotations

from ..records import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:  # a guest's events import none of these
    from collections.abc import Collection, Iterable, Sequence

    from ..firewalls.openings import Firewalls
    from ..model import Network
    from ..planning.plan import Step
    from ..planning.state import Observed, Tap


class Host(Protocol):
    """What planning and applying need of a machine; tests have one that only prints."""

    def observe(
        self,
        devices: Iterable[str],
        *,
        ruleset: bool = False,
        firewalls: Firewalls | None = None,
        trusted: Collection[str] = (),
    ) -> Observed:
        """Read what the kernel holds; route_localnet of ``devices``; our tables only if ``ruleset``.

        Other firewalls are not looked at where they are known: ``firewalls``. ``trusted`` are tables of nft
        that may be opened.
        """

    def canonical(self, networks: Sequence[Network], script: str) -> str:
        """How nft would list our tables after ``script``; nothing is changed."""

    def taps(self, bridges: Iterable[str]) -> list[Tap]:
        """The devices attached to ``bridges``."""

    def run(self, steps: Sequence[Step]) -> None:
        """Do ``steps`` in order, stop at the first that fails. Raises HostError."""
