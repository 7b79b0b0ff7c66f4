"""Typed errors, one class for each party who has to act; each carries its exit status. And what collects them."""

from __future__ import annotations

from collections.abc import Callable

from .records import NamedTuple


class LoopnetError(Exception):
    """Base of all errors shown to the user: one line saying what, why and the next command.

    ``status`` is the exit status of the command line.
    """

    status = 4


class NotFoundError(LoopnetError):
    """What was asked for isn't there, or a comparison found a difference (status 1)."""

    status = 1


class InputError(LoopnetError):
    """The user must change what was given: arguments, XML, configuration (status 2)."""

    status = 2


class ConflictError(InputError):
    """What was given is well-formed but another network, guest or address is in its way (status 2)."""


class PoolFullError(ConflictError):
    """Every host number of the network is reserved (status 2)."""


class HostError(LoopnetError):
    """The host refused a step, or a tool it needs is missing (status 4)."""


class RulesError(HostError):
    """nft or the kernel does not take rules like ours, wherever they are (status 4)."""


class StateError(HostError):
    """A file of ours can't be read, written or locked, or isn't what we wrote (status 4)."""


class NamesError(HostError):
    """Guests' names can't be read or published; all else has been done, and nobody is refused for them (status 4)."""


class VerifyError(HostError):
    """All steps went through, yet the host isn't as desired when observed again (status 4)."""


class PrivilegeError(LoopnetError):
    """The caller lacks the right to do this (status 5)."""

    status = 5


class Hindrance(NamedTuple):
    """Why something is not as it should be, though nothing is refused for it, and the command that fixes it."""

    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.why}; fix it: {self.remedy}"


def attempts(*deeds: Callable[[], object]) -> list[str]:
    """Do each, whatever becomes of the others, as for what is undone; what failed."""
    errors = []
    for deed in deeds:
        try:
            deed()
        except LoopnetError as error:
            errors.append(str(error))
    return errors
