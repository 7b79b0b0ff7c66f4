"""What is too old says so: programs, libvirt, the kernel, Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from libvirt_loopnet import process
from libvirt_loopnet.errors import HostError
from libvirt_loopnet.host.kernel import nftables, versions
from libvirt_loopnet.process import Result

CHECKOUT = Path(__file__).resolve().parents[2]


def told(monkeypatch: pytest.MonkeyPatch, answers: dict[str, str], status: int = 0) -> None:
    def run(argv: list[str], stdin: bytes = b"", timeout: float = 0) -> Result:
        if "--version" in argv:
            if argv[0] not in answers:
                raise HostError(f"{argv[0]} is not installed")
            return Result(0, answers[argv[0]].encode(), b"")
        return Result(status, b"", b"/dev/stdin:105:20-20: Error: syntax error, unexpected string\n")

    monkeypatch.setattr(process, "run", run)


@pytest.mark.parametrize(
    ("answers", "old"),
    [
        ({"nft": "nftables v0.9.8 (E.D.S.)\n", "libvirtd": "libvirtd (libvirt) 7.0.0\n"}, []),
        ({"nft": "nftables v1.1 (Commodore)\n", "virtnetworkd": "virtnetworkd (libvirt) 12.8.0\n"}, []),
        ({"nft": "nftables v0.9.3 (Topsy)\n"}, ["nft 0.9.3 is too old: loopnet needs 0.9.8 or later"]),
        (
            {"virtnetworkd": "virtnetworkd (libvirt) 6.0.0\n"},
            ["libvirt 6.0.0 is too old: loopnet needs 7.0 or later"],
        ),
        ({"nft": "?"}, []),
        ({}, []),
    ],
)
def test_too_old(answers: dict[str, str], old: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, answers)
    assert [str(each) for each in versions.old()] == old


def test_a_network_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, {"nft": "nftables v0.9.3 (Topsy)\n"}, status=1)
    with pytest.raises(HostError, match=r"^nft 0\.9\.3 is too old: .*; upgrade the package nftables$"):
        nftables.nft("table x")
    told(monkeypatch, {"nft": "nftables v1.0.6 (Lester)\n"}, status=1)
    with pytest.raises(HostError, match=r"nft refused the rules: .*syntax error"):
        nftables.nft("table x")


def hook(driver: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """What the hook's own line of Python does where Python is 3.8."""
    text = (CHECKOUT / "hooks" / driver).read_text()
    code = text[text.index("-c '") + 4 : text.rindex('\' "$package"')]
    old = f"import sys\nsys.version_info = (3, 8, 10)\nexec({code!r})"
    argv = [sys.executable, "-I", "-S", "-c", old, str(CHECKOUT), driver, "net", "start", "begin", "-"]
    return subprocess.run(argv, input=data, capture_output=True, timeout=30)


@pytest.mark.parametrize("driver", ["network", "qemu"])
def test_hooks_under_an_old_python(driver: str) -> None:
    """Ours are refused, with the reason; others have nothing to do with it."""
    ours = hook(driver, b"<network><metadata x:y='https://libvirt-loopnet.org/xml/network/1'/></network>")
    assert (ours.returncode, ours.stderr) == (
        1,
        b"libvirt-loopnet: /usr/bin/python3 is 3.8, and 3.9 is needed\n",
    )
    others = hook(driver, b"<network/>")
    assert (others.returncode, others.stderr) == (0, b"")
