"""The SELinux module of the RPM, linked with a whole policy, Debian's; and its labels, for the files of the RPM.

The policy is looked at, not enforced: that wants a kernel with SELinux.
"""

from __future__ import annotations

import bz2
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import setools

from libvirt_loopnet.host.confinement import HOOK_TYPE, PACKAGED, SCRIPT_TYPE

TYPE = "default"
"""Debian's name of its policy."""
STORE = Path("/var/lib/selinux")
LABELS = {
    "/etc/libvirt/hooks/network.d/50-loopnet": HOOK_TYPE,
    "/etc/libvirt/hooks/qemu.d/50-loopnet": HOOK_TYPE,
    PACKAGED: SCRIPT_TYPE,
}
MODULE = "usr/share/selinux/packages/targeted/loopnet.pp.bz2"
FEDORA = """\
policy_module(fedora, 1.0)
type virtnetworkd_t;
domain_type(virtnetworkd_t)
type virtqemud_t;
domain_type(virtqemud_t)
type virt_hook_t;
files_type(virt_hook_t)
"""
"""Types of Fedora's policy that Debian's lacks: the modular daemons', and that of directories of hooks."""


class Policy:
    """A policy below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        place = root / "etc/selinux" / TYPE
        self.contexts = place / "contexts/files/file_contexts"
        self._policy = setools.SELinuxPolicy(str(next((place / "policy").glob("policy.*"))))

    def rules(self, source: str, target: str = "", tclass: str = "", kind: str = "allow") -> set[str]:
        """The rules that hold for a type, its attributes' too."""
        query = setools.TERuleQuery(self._policy, ruletype=[kind], source=source, source_indirect=True)
        if target:
            query.target, query.target_indirect = target, True
        if tclass:
            query.tclass = [tclass]
        return {str(rule) for rule in query.results()}

    def permissions(self, source: str, target: str, tclass: str) -> set[str]:
        """What ``source`` may do to ``target`` whatever booleans say."""
        always = [rule for rule in self.rules(source, target, tclass) if "[ " not in rule]
        return {word for rule in always for word in rule.partition(":")[2].strip("; }").split()[1:]} - {"{"}

    def types(self, paths: Sequence[str]) -> dict[str, str]:
        """The types that files get, as restorecon has it."""
        told = _run(["matchpathcon", "-m", "file", "-f", str(self.contexts), *paths])
        return {path: label.split(":")[2] for path, label in map(str.split, told.splitlines())}


@pytest.fixture(scope="module")
def module(rpms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module as the RPM has it."""
    unpacked = tmp_path_factory.mktemp("selinux")
    package = next(rpms.glob("libvirt-loopnet-selinux-*.noarch.rpm"))
    _run(["sh", "-c", f"rpm2cpio {package} | (cd {unpacked} && cpio --quiet -id)"])
    module = unpacked / "loopnet.pp"
    module.write_bytes(bz2.decompress((unpacked / MODULE).read_bytes()))
    return module


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """Debian's policy, with Fedora's daemons."""
    source = tmp_path_factory.mktemp("fedora")
    (source / "fedora.te").write_text(FEDORA)
    _run(["make", "-C", str(source), "-f", "/usr/share/selinux/devel/Makefile", "fedora.pp"])
    return _linked(tmp_path_factory.mktemp("before"), [source / "fedora.pp"], STORE)


@pytest.fixture(scope="module")
def policy(before: Policy, module: Path, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """The same with our module."""
    return _linked(tmp_path_factory.mktemp("after"), [module], before.root / "var/lib/selinux")


def _linked(root: Path, modules: Sequence[Path], store: Path) -> Policy:
    """What semodule makes of the policy in ``store`` and ``modules``, below ``root``."""
    shutil.copytree("/etc/selinux", root / "etc/selinux")
    shutil.copytree(store, root / "var/lib/selinux")
    added = [argument for module in modules for argument in ("-i", str(module))]
    _run(["semodule", "-p", str(root), "-s", TYPE, "-n", "-X", "200", *added])
    return Policy(root)


def _run(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_labels_are_those_of_the_files(policy: Policy, before: Policy, rpms: Path) -> None:
    """Our types are of files that the RPM has; all its other files have the labels that they had."""
    package = next(rpms.glob("libvirt-loopnet-0*.noarch.rpm"))
    listed = _run(["rpm", "-qpl", str(package)]).split()
    assert set(LABELS) <= set(listed)
    assert policy.types(listed) == {**before.types(listed), **LABELS}
    added = set(policy.contexts.read_text().splitlines()) - set(before.contexts.read_text().splitlines())
    assert {line.split()[0].replace("\\", "") for line in added} == set(LABELS)


@pytest.mark.parametrize("daemon", ["virtd_t", "virtnetworkd_t", "virtqemud_t"])
def test_hooks_run_unconfined(policy: Policy, daemon: str) -> None:
    transition = f"type_transition {daemon} {HOOK_TYPE}:process loopnet_hook_t;"
    assert transition in policy.rules(daemon, HOOK_TYPE, kind="type_transition")
    assert "transition" in policy.permissions(daemon, "loopnet_hook_t", "process")
    assert {"execute", "getattr", "open", "read"} <= policy.permissions(daemon, HOOK_TYPE, "file")
    assert "entrypoint" in policy.permissions("loopnet_hook_t", HOOK_TYPE, "file")
    for program in ("bin_t", "shell_exec_t"):  # Python, nft, ip
        assert {"execute", "execute_no_trans"} <= policy.permissions("loopnet_hook_t", program, "file")
    for kind in ("netlink_route_socket", "netlink_netfilter_socket", "capability"):
        assert policy.permissions("loopnet_hook_t", "loopnet_hook_t", kind), kind
    assert "signal" in policy.permissions("loopnet_hook_t", "dnsmasq_t", "process")


@pytest.mark.parametrize("daemon", ["virtd_t", "virtnetworkd_t", "virtqemud_t"])
def test_all_else_of_the_daemons_is_as_it_was(policy: Policy, before: Policy, daemon: str) -> None:
    """What libvirt itself, or any other hook of its, may do has not changed."""
    new = {rule for rule in policy.rules(daemon) - before.rules(daemon) if "loopnet_" not in rule}
    assert new <= {f"allow {daemon} virt_hook_t:dir {{ getattr ioctl lock open read search }};"}


def test_dnsmasq_reads_and_runs_what_it_needs(policy: Policy, before: Policy) -> None:
    script = policy.permissions("dnsmasq_t", SCRIPT_TYPE, "file")
    assert {"execute", "execute_no_trans", "open", "read"} <= script
    for program in ("bin_t", "shell_exec_t"):  # timeout, logger
        assert {"execute", "execute_no_trans"} <= policy.permissions("dnsmasq_t", program, "file")
    assert "watch" in policy.permissions("dnsmasq_t", "virt_var_lib_t", "dir")
    assert "watch" not in before.permissions(
        "dnsmasq_t", "virt_var_lib_t", "dir"
    )  # a network takes the module
    helper = policy.permissions("dnsmasq_t", "virt_leaseshelper_t", "process")
    assert {"transition", "signal", "sigkill"} <= helper


def test_all_else_of_dnsmasq_is_as_it_was(policy: Policy, before: Policy) -> None:
    new = {rule for rule in policy.rules("dnsmasq_t") - before.rules("dnsmasq_t") if "loopnet_" not in rule}
    touched = {rule.split()[2] for rule in new}
    assert touched == {"dnsmasq_t:process", "virt_var_lib_t:dir", "virt_leaseshelper_t:process", "bin_t:file"}
