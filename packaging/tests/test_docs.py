"""Man pages and completions: well-formed, and complete beside the command itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conftest import TOP

from libvirt_loopnet.cli import VERBS
from libvirt_loopnet.config import _KEYS

PAGES = sorted((TOP / "packaging/man").glob("*.[1-8]"))
COMPLETIONS = TOP / "packaging/completions"
NAMES = {verb.name for verb in VERBS}


def run(*argv: str, input: str = "") -> str:
    done = subprocess.run(
        argv, input=input, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "HOME": "/nonexistent"},
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_is_well_formed(page: Path) -> None:
    # which pages the machine has, and whether they have an index, is not the page's fault
    said = run("mandoc", "-T", "lint", "-W", "style", str(page)).splitlines()
    assert [line for line in said if not re.search("referenced manual not found|mandoc.db", line)] == []
    assert run("sh", "-c", f"man --warnings --local-file -E UTF-8 -Tutf8 -Z '{page}' 2>&1 >/dev/null") == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_fits_a_terminal(page: Path) -> None:
    text = run("sh", "-c", f"man -l '{page}' | col -bx")
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_man_page_has_every_command_and_option() -> None:
    page = (TOP / "packaging/man/loopnet.1").read_text()
    described = set(re.findall(r"^(?:\.It |)\.?Cm ([a-z-]+)", page, re.M)) | set(
        re.findall(r"^\.Cm ([a-z-]+)", page, re.M)
    )
    assert described >= NAMES
    for verb in NAMES:
        assert options(verb) <= set(re.findall(r"Fl -([a-z0-9-]+)", page)), verb


def test_man_page_has_every_key() -> None:
    page = (TOP / "packaging/man/libvirt-loopnet.conf.5").read_text()
    assert set(re.findall(r"^\.It Cm ([\w-]+) No", page, re.M)) == set(_KEYS)


def options(verb: str) -> set[str]:
    """The long options of a command, from its own help."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from libvirt_loopnet.cli import main; main()"
    said = run("/usr/bin/python3", "-I", "-c", code, str(TOP), verb, "--help")
    usage = said.partition("\n\n")[0]
    assert usage.startswith(f"usage: loopnet {verb}"), said
    return set(re.findall(r"--([a-z0-9-]+)", usage))


BASH = r"""
. /usr/share/bash-completion/bash_completion
. "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
_loopnet loopnet "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


def bash(*words: str) -> set[str]:
    return set(run("bash", "--norc", "-c", BASH, "bash", str(COMPLETIONS / "loopnet.bash"), *words).split())


def fish(line: str) -> set[str]:
    code = f"source {COMPLETIONS}/loopnet.fish; complete -C '{line}'"
    lines = run("fish", "-N", "-c", code).splitlines()  # some of stderr: there is no command loopnet here
    return {each.partition("\t")[0] for each in lines if re.match("--|[a-z-]+\t", each)}


def test_bash() -> None:
    assert bash("loopnet", "") == NAMES
    for verb in NAMES:
        assert bash("loopnet", verb, "--") == {f"--{option}" for option in options(verb) | {"help"}}
    assert bash("loopnet", "define", "--mode", "") == {"mapped", "native"}


def test_fish() -> None:
    assert fish("loopnet ") >= NAMES
    for verb in NAMES:
        assert fish(f"loopnet {verb} --") == {f"--{option}" for option in options(verb) | {"help"}}


def test_zsh() -> None:
    text = (COMPLETIONS / "_loopnet").read_text()
    assert run("zsh", "-f", "-n", str(COMPLETIONS / "_loopnet")) == ""
    commands = text.partition("commands=(")[2].partition("\n    )")[0]
    assert set(re.findall(r"""^\s+['"]([a-z-]+):""", commands, re.M)) == NAMES
    for verb in NAMES:
        assert options(verb) - {"help"} <= set(re.findall(r"--([a-z0-9-]+)", text)), verb
