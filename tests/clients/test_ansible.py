"""Ansible's community.libvirt: networks are managed, and guests of its inventory reached."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest

from tests.clients.documented import manual
from tests.machines.guest import SystemGuest
from tests.machines.systems import System
from tests.sandbox.world import World, template

pytestmark = pytest.mark.timeout(1200)

DIRECTORY = "/run/sandbox/ansible"
MAC = "52:54:00:aa:00:20"
CONFIGURATION = "[defaults]\nhost_key_checking = false\nlocalhost_warning = false\n"

PLAYBOOK = f"""\
- hosts: localhost
  connection: local
  gather_facts: false
  module_defaults:
    community.libvirt.virt_net: {{name: loopnet, uri: "qemu:///system"}}
  tasks:
    - name: present
      community.libvirt.virt_net: {{state: present, xml: "{{{{ lookup('file', 'loopnet.xml') }}}}"}}
    - name: active
      community.libvirt.virt_net: {{state: active}}
    - name: autostart
      community.libvirt.virt_net: {{autostart: true}}
    - name: modify
      community.libvirt.virt_net: {{command: modify, xml: "<host mac='{MAC}' name='box' ip='{{{{ address }}}}'/>"}}
"""
TASKS = ("present", "active", "autostart", "modify")

INVENTORY = manual("plugin: community.libvirt.libvirt")
"""The plugin's own connection is the guest agent's; the address is asked of it as well, and of nobody else."""


def ansible(world: World, *argv: str) -> str:
    environment = {"HOME": DIRECTORY, "LC_ALL": "C.UTF-8", "ANSIBLE_CONFIG": f"{DIRECTORY}/ansible.cfg"}
    assignments = [f"{name}={value}" for name, value in environment.items()]
    return world.host.run(["env", "-C", DIRECTORY, *assignments, *argv], timeout=300).stdout


def put(world: World, name: str, text: str) -> Path:
    path = world.path(f"{DIRECTORY}/{name}")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def changed(world: World, address: str) -> List[str]:
    """The tasks of the playbook that changed something."""
    told = ansible(world, "ansible-playbook", "-i", "localhost,", "-e", f"address={address}", "play.yml")
    tasks = re.findall(r"^TASK \[(\w+)\] \*+\n(\w+): ", told, re.MULTILINE)
    assert [name for name, _ in tasks] == list(TASKS), told
    return [name for name, result in tasks if result == "changed"]


def test_networks_are_managed(world: World) -> None:
    """Each task does its work once; the address reserved is the one the guest gets."""
    put(world, "ansible.cfg", CONFIGURATION)
    put(world, "loopnet.xml", template("loopnet"))
    put(world, "play.yml", PLAYBOOK)
    assert changed(world, "127.1.0.20") == list(TASKS)
    assert changed(world, "127.1.0.20") == []
    assert "Autostart:      yes" in world.sandbox.virsh("net-info", "loopnet")
    guest = world.sandbox.guest("box", macs=[MAC])
    guest.start()
    guest.wait_boot()
    assert guest.wait_lease() == "10.127.1.20"
    assert world.published() == {"box.loopnet": "127.1.0.20"}

    facts = ansible(world, "ansible", "localhost", "-m", "community.libvirt.virt_net", "-a", "command=info")
    (lease,) = json.loads(facts.partition("=>")[2])["networks"]["loopnet"]["dhcp_leases"]
    assert (lease["mac"], lease["ipaddr"]) == (MAC, "127.1.0.20")

    guest.destroy()
    assert changed(world, "127.1.0.21") == ["modify"]
    assert changed(world, "127.1.0.21") == []
    guest.start()
    guest.wait_boot()
    assert guest.wait_lease() == "10.127.1.21"
    guest.destroy()
    guest.undefine()


def test_guests_of_the_inventory_are_reached(world: World, vm1: SystemGuest, managed: System) -> None:
    """By ssh, where a line of `compose` has the name; and by the plugin's own way, the guest agent."""
    put(world, "ansible.cfg", CONFIGURATION)
    put(world, "hosts.libvirt.yml", INVENTORY)
    told = ansible(world, "ansible-inventory", "-i", "hosts.libvirt.yml", "--list")
    hosts: Dict[str, Any] = json.loads(told)["_meta"]["hostvars"]
    assert [*hosts] == ["vm1"]
    asked = hosts["vm1"]["interface_addresses"]  # of the agent, which tells what the guest has
    assert vm1.address() in [address["addr"] for nic in asked.values() for address in nic["addrs"]], asked
    reach = ["-i", "hosts.libvirt.yml", "-u", "root", "--private-key", str(managed.key), "all"]
    assert "vm1 | CHANGED | rc=0 >>\n10.127.1." in ansible(
        world, "ansible", *reach, "-m", "raw", "-a", "hostname -I"
    )
    assert '"ping": "pong"' in ansible(world, "ansible", *reach, "-m", "ping")
