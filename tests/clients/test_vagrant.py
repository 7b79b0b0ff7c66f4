"""vagrant-libvirt, from a box to its destruction, with loopnet as management network."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Callable, Iterator

import pytest

from tests.clients.documented import readme
from tests.machines.guest import CMDLINE
from tests.machines.systems import System
from tests.sandbox.cache import command
from tests.sandbox.world import World

pytestmark = pytest.mark.timeout(1800)

VAGRANTFILE = f"""\
Vagrant.configure("2") do |config|
config.vm.box = "small"
{readme("ruby")}
end
"""

BOX = """\
Vagrant.configure("2") do |config|
  config.vm.synced_folder ".", "/vagrant", disabled: true
  config.vm.boot_timeout = 600
  config.ssh.username = "root"
  config.ssh.private_key_path = "{key}"
  config.ssh.insert_key = false
  config.ssh.sudo_command = "%c"
  config.vm.provider :libvirt do |libvirt|
    libvirt.driver = "qemu"
    libvirt.cpu_mode = "custom"
    libvirt.cpu_model = "qemu64"
    libvirt.graphics_type = "none"
    libvirt.kernel = "{kernel}"
    libvirt.initrd = "{initramfs}"
    libvirt.cmd_line = "{cmdline}"
    libvirt.storage_pool_path = "{pool}"
  end
end
"""
"""Emulated, booted without a boot loader, and without sudo: that is this box's affair, no network's."""

Vagrant = Callable[..., str]


@pytest.fixture
def vagrant(world: World, managed: System, tmp_path: Path) -> Iterator[Vagrant]:
    """Runs vagrant where the README's Vagrantfile is; the box called small is known."""
    project, pool, parts = (tmp_path / name for name in ("project", "pool", "parts"))
    for directory in (project, pool, parts):
        directory.mkdir()
    tmp_path.chmod(0o755)
    (project / "Vagrantfile").write_text(VAGRANTFILE)
    command(["qemu-img", "convert", "-O", "qcow2", str(managed.disk), str(parts / "box.img")])
    (parts / "metadata.json").write_text(
        json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": 2})
    )
    (parts / "Vagrantfile").write_text(
        BOX.format(
            key=managed.key, kernel=managed.kernel, initramfs=managed.initramfs, cmdline=CMDLINE, pool=pool
        )
    )
    with tarfile.open(tmp_path / "small.box", "w") as box:
        for part in sorted(parts.iterdir()):
            box.add(part, part.name)
    environment = {
        "HOME": str(tmp_path), "VAGRANT_HOME": str(tmp_path / "home"), "LC_ALL": "C.UTF-8",
        "VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_DEFAULT_PROVIDER": "libvirt",
    }  # fmt: skip
    prefix = [
        "env",
        "-C",
        str(project),
        *(f"{name}={value}" for name, value in environment.items()),
        "vagrant",
    ]

    def run(*arguments: str) -> str:
        return world.host.run([*prefix, *arguments], timeout=900).stdout

    run("box", "add", "--name", "small", str(tmp_path / "small.box"))
    yield run
    for name in ("home", "pool", "parts", "small.box"):
        path = tmp_path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def test_up_ssh_halt_destroy(world: World, vagrant: Vagrant) -> None:
    world.start()
    assert "IP: 127.1.0.2" in vagrant("up") or "127.1.0.2" in vagrant("ssh-config")
    assert "HostName 127.1.0.2\n" in vagrant("ssh-config")
    assert vagrant("ssh", "-c", "hostname").strip() == "guest"
    assert world.running_guests() == ["project_default"]
    vagrant("halt")
    assert world.running_guests() == []
    vagrant("up")
    assert "HostName 127.1.0.2\n" in vagrant("ssh-config")
    vagrant("destroy", "--force")
    assert world.running_guests() == []
    assert world.active_networks() == ["loopnet"]  # kept, as it is not Vagrant's own
