"""The command ``loopnet``: finds the verb, runs it, turns errors into one line and a status.

======  ===========================================================================
status  means
======  ===========================================================================
0       done; for status and plan: all is as desired
1       differs, or what was asked for isn't there
2       wrong usage or input: what was given must be changed
4       the host refused, or a tool is missing
5       permission: root is needed
130     interrupted
======  ===========================================================================

Standard output has the result and nothing else; messages go to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn, Protocol, cast

from . import __version__
from .errors import HostError, InputError, LoopnetError, PrivilegeError

DEFAULT_URI = "qemu:///system"
INTERRUPTED = 130
BROKEN_PIPE = 141
"""As a shell reports a program that SIGPIPE ended."""


class Verb(NamedTuple):
    """One line of ``loopnet --help``."""

    name: str
    synopsis: str
    summary: str

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")


VERBS = (
    Verb("define", "[NAME]", "define a new network with free prefixes"),
    Verb("rewrite", "[FILE]", "filter: any network's XML in, loopnet XML out"),
    Verb("convert", "NETWORK", "turn a libvirt network into a loopnet network"),
    Verb("revert", "NETWORK", "restore a converted network"),
    Verb("list", "", "show guests and their addresses"),
    Verb("graph", "", "draw networks, guests and addresses, as SVG"),
    Verb("ip", "GUEST", "print the address at which the host reaches a guest"),
    Verb("reserve", "GUEST|MAC ADDRESS", "choose a guest's address"),
    Verb("release", "GUEST|MAC", "give back a guest's address"),
    Verb("publish", "GUEST PORTS", "open a guest's port to others, as 8080:80"),
    Verb("unpublish", "GUEST PORTS", "close it again"),
    Verb("status", "", "networks, lo, rules, hooks: is all as it should be?"),
    Verb("plan", "", "print what sync would run; change nothing"),
    Verb("sync", "", "repair what differs"),
    Verb("watch", "", "do that whenever something changes, until stopped"),
    Verb("cleanup", "", "remove everything of loopnet from the running host"),
    Verb("doctor", "", "find what gets in the way, and what fixes it"),
    Verb("guest-setup", "--format F", "print what a guest of a native network needs"),
    Verb("install-hooks", "", "let libvirt run loopnet's hooks"),
    Verb("uninstall-hooks", "", "remove them again"),
)


class Command(Protocol):
    """What a module in commands/ has; its docstring is its help."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit status."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """argparse's own asks shutil for the width, which loads bz2 and lzma, each time that an argument is added."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """As wide as the terminal is, or as COLUMNS says."""
    with contextlib.suppress(KeyError, ValueError):
        return int(os.environ["COLUMNS"]) or 80
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    return 80


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see: {self.prog} --help")


class _MainParser(_Parser):
    def format_help(self) -> str:
        return help_text()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``, by default this process's; the exit status."""
    try:
        _open_streams()
        _harden_output()
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _give_up_output()
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        message, status = _explain(error)
        with contextlib.suppress(OSError):  # there is no more to be told, and nowhere to tell it
            print("loopnet:", " ".join(message.split()), file=sys.stderr)
        _give_up_output()
        return status


def program() -> NoReturn:
    """main(), and the end of this process: to take Python apart first takes a sixth of a short command's time."""
    status = main()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(status)


def help_text() -> str:
    """``loopnet --help``; fits a terminal of 80 by 24."""
    lines = [f"  {shown:26} {verb.summary}" for verb, shown in _shown_verbs()]
    return "\n".join(
        (
            "usage: loopnet [--connect URI] COMMAND ...    loopnet --version | COMMAND --help",
            f"Stable addresses in 127.0.0.0/8 for libvirt guests. Version {__version__}.",
            "",
            *lines,
            "",
            f"  {'--connect URI':26} libvirt's, by default {DEFAULT_URI}",
            "status: 0 done; 1 differs, not found; 2 input; 4 host refused; 5 permission",
            "",
        )
    )


def _shown_verbs() -> Iterator[tuple[Verb, str]]:
    """A line each, but one for a verb and its opposite: [un]install-hooks."""
    names = {verb.name for verb in VERBS}
    for verb in VERBS:
        if verb.name.removeprefix("un") == verb.name or verb.name[2:] not in names:
            both = "[un]" if f"un{verb.name}" in names else ""
            yield verb, f"{both}{verb.name} {verb.synopsis}".strip()


def _run(argv: list[str]) -> int:
    try:
        return _dispatch(argv)
    except SystemExit as end:  # argparse, after --help and --version
        return end.code if isinstance(end.code, int) else 0


def _dispatch(argv: list[str]) -> int:
    top, rest = _split(argv)
    verb = _find(top.command)
    command = cast(Command, import_module(f"{__package__}.commands.{verb.module}"))
    parser = _Parser(
        prog=f"loopnet {verb.name}",
        description=(command.__doc__ or verb.summary).replace("::\n", ":\n").replace("``", ""),
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--connect", metavar="URI", default=top.connect, help=argparse.SUPPRESS)
    command.add_arguments(parser)
    return command.run(parser.parse_args(rest))


def _split(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = _MainParser(prog="loopnet", formatter_class=_Formatter, allow_abbrev=False)
    parser.add_argument("--connect", metavar="URI", default=DEFAULT_URI)
    parser.add_argument("--version", action="version", version=f"loopnet {__version__}")
    parser.add_argument("command", nargs="?", default="")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    top = parser.parse_args(argv)
    return top, cast("list[str]", top.rest)


def _find(name: str) -> Verb:
    if not name:
        raise InputError("no command was given; see: loopnet --help")
    for verb in VERBS:
        if verb.name == name:
            return verb
    from difflib import get_close_matches

    close = get_close_matches(name, [verb.name for verb in VERBS], 1)
    hint = f"did you mean: loopnet {close[0]}?" if close else "see: loopnet --help"
    raise InputError(f"there is no command {name[:40]!r}; {hint}")


def _open_streams() -> None:
    """What is closed (``loopnet sync >&-``) goes nowhere, and no file of ours gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r"))  # noqa: SIM115


def _harden_output() -> None:
    """A name that the terminal's encoding can't show is no reason to fail."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="backslashreplace")


def _explain(error: BaseException) -> tuple[str, int]:
    """One line, and the exit status."""
    if isinstance(error, LoopnetError):
        return str(error), error.status
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    _trace()
    if isinstance(error, OSError):
        return _explain_system(error)
    return f"{type(error).__name__}: {error}; please report this", HostError.status


def _explain_system(error: OSError) -> tuple[str, int]:
    what = f"{error.filename}: " if error.filename else ""
    reason = (error.strerror or str(error)).lower()
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return f"{what}{reason}; run this as root", PrivilegeError.status
    return f"{what}{reason}", HostError.status


def _give_up_output() -> None:
    """What can't be written is not to be tried once more, with a message, when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _trace() -> None:
    if os.environ.get("LOOPNET_DEBUG") == "1":
        import traceback

        traceback.print_exc()
