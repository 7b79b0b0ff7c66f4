"""libvirt's daemons are called by the names they have, whichever kind they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libvirt_loopnet.daemon import running


@pytest.mark.parametrize(
    ("processes", "sockets", "named", "reload"),
    [
        ((), (), "libvirtd", ""),
        ((), ("libvirt-sock",), "libvirtd", ""),
        (("libvirtd",), ("libvirt-sock",), "libvirtd", "systemctl reload libvirtd"),
        # virtproxyd has libvirtd's sockets, and nothing to do with hooks
        ((), ("libvirt-sock", "virtnetworkd-sock", "virtqemud-sock"), "virtnetworkd virtqemud", ""),
        (
            ("virtproxyd", "virtnetworkd"),
            ("libvirt-sock", "virtnetworkd-sock", "virtqemud-sock"),
            "virtnetworkd virtqemud",
            "systemctl reload virtnetworkd",
        ),
        (
            ("virtqemud", "virtlxcd", "virtnetworkd"),
            ("virtqemud-sock", "virtnetworkd-sock"),
            "virtnetworkd virtqemud virtlxcd",
            "systemctl reload virtnetworkd virtqemud",
        ),
        # sockets that another kind has left
        (("libvirtd",), ("libvirt-sock", "virtqemud-sock"), "libvirtd", "systemctl reload libvirtd"),
    ],
)
def test_names(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    processes: tuple[str, ...],
    sockets: tuple[str, ...],
    named: str,
    reload: str,
) -> None:
    _let_run(monkeypatch, processes)
    for name in sockets:
        (tmp_path / name).touch()
    assert " ".join(running.names(str(tmp_path), str(tmp_path / "sbin"))) == named
    assert running.reload_command() == reload


@pytest.mark.parametrize(
    ("programs", "named"),
    [
        (("libvirtd", "virtnetworkd", "virtqemud"), "libvirtd"),
        (("virtnetworkd", "virtqemud", "virtproxyd"), "virtnetworkd virtqemud"),
        ((), "libvirtd"),
    ],
)
def test_names_of_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, programs: tuple[str, ...], named: str
) -> None:
    """With no process and no socket."""
    _let_run(monkeypatch, ())
    for name in programs:
        (tmp_path / name).touch()
    assert " ".join(running.names(str(tmp_path / "run"), str(tmp_path))) == named


def _let_run(monkeypatch: pytest.MonkeyPatch, processes: tuple[str, ...]) -> None:
    here = os.getpid()
    monkeypatch.setattr(running, "processes", lambda: iter([(here, name) for name in processes]))
    monkeypatch.setattr(running, "_is_ours", lambda process: process == f"/proc/{here}")
