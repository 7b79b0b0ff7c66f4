"""The libvirt domain XML of a guest."""

from __future__ import annotations

import hashlib
from typing import Sequence
from xml.sax.saxutils import escape, quoteattr

from .image import GuestImage

KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet nokaslr mitigations=off random.trust_cpu=on no_timer_check panic=-1"
    " init_on_alloc=0 rcupdate.rcu_expedited=1 nowatchdog cryptomgr.notests numa=off pci=lastbus=0"
)
"""Most are for a start in less processor time, which is emulated. On a busy machine the emulated timer may be late,
and a kernel that checks it, as Ubuntu's, would panic."""
SMALL_GUEST = "noapictimer retain_initrd"
"""That as well, for the small test guest with its one processor, whose timer need not be measured, for a fifth of a
second; nor need the initramfs be overwritten when it is done with."""
LEAST_MIB = 64
"""Where the kernel ends. A guest with less memory never runs (World.still); QEMU takes the packed kernel sooner."""

DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>{vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <!-- without rdrand the kernel spends a second on finding something random -->
  <cpu match='exact' check='none'><model>qemu64</model><feature policy='require' name='rdrand'/></cpu>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='pty'>
      <log file='{base}.console' append='on'/>
      <target port='0'/>
    </serial>
    <serial type='unix'>
      <source mode='bind' path='{base}.channel'/>
      <target port='1'/>
    </serial>
{interfaces}
{devices}
  </devices>
</domain>
"""

VIRTIO = "<model type='virtio'/>"
# The option ROM would only slow the start down.
INTERFACE = """\
<interface type='network'>
  <mac address={mac}/>
  <source network={network}/>
{settings}
  <rom enabled='no'/>
</interface>
"""


def domain_xml(
    name: str,
    uuid: str,
    macs: Sequence[str],
    networks: Sequence[str],
    *,
    base: str,
    cmdline: str,
    memory_mib: int,
    devices: str,
    image: GuestImage,
    vcpus: int = 1,
    settings: Sequence[str] = (),
) -> str:
    """A domain that boots an image's kernel.

    `base` is the path, without its suffix, of the console log and the command channel; `cmdline`
    is added to the kernel's, `devices` to the XML as it is. `settings` are elements of the NICs,
    each <model type='virtio'/> by default.
    """
    kernel = image.kernel if memory_mib >= LEAST_MIB else image.vmlinuz
    arguments = f"{KERNEL_ARGUMENTS} guest.hostname={name} {cmdline}".rstrip()
    settings = settings or [VIRTIO] * len(macs)
    interfaces = "".join(map(interface_xml, macs, networks, settings))
    return DOMAIN.format(
        name=escape(name), uuid=uuid, memory=memory_mib, vcpus=vcpus, kernel=escape(str(kernel)),
        initramfs=escape(str(image.initramfs)), cmdline=escape(arguments), base=escape(base),
        interfaces=interfaces, devices=devices,
    )  # fmt: skip


def interface_xml(mac: str, network: str, settings: str = VIRTIO) -> str:
    """One NIC in a libvirt network."""
    return INTERFACE.format(mac=quoteattr(mac), network=quoteattr(network), settings=settings)


def derived_mac(name: str, nic: int) -> str:
    """The MAC of NIC number `nic` of a guest, the same each time."""
    digest = hashlib.sha256(f"{name}/{nic}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])
