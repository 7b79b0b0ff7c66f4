"""The sandbox's own libvirtd: configuration, start, stop, virsh."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from .namespaces import Namespace

LOG = "/var/log/libvirt/libvirtd.log"
PID_FILE = "/run/libvirtd.pid"

LIBVIRTD_CONF = f"""\
unix_sock_group = "root"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "2:file:{LOG}"
"""

# No cgroups, namespaces, extended attributes or virtlogd: nothing that is outside the sandbox.
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""

DEFAULT_NETWORK = """\
<network>
  <name>default</name>
  <uuid>5e3a1b52-46a6-4b6c-8cde-6e3a7c4c8a01</uuid>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <mac address='52:54:00:6e:3a:7c'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'/>
    </dhcp>
  </ip>
</network>
"""

START = f"""
/usr/sbin/libvirtd --daemon --pid-file {PID_FILE}
for _ in $(seq 200); do
    [ -S /run/libvirt/libvirt-sock ] && break
    sleep 0.05
done
[ -S /run/libvirt/libvirt-sock ] || {{ echo 'libvirtd: no socket after 10 s'; exit 1; }}
# It takes commands before it has found its running guests again, and calls them "not running" until then.
for _ in $(seq 100); do
    missing='' listed=" $(virsh -q list --name | tr '\n' ' ') "
    for file in /run/libvirt/qemu/*.xml; do
        name=${{file##*/}}
        case $listed in *" ${{name%.xml}} "*) ;; *) [ ! -e "$file" ] || missing=$name ;; esac
    done
    [ -n "$missing" ] || break
    sleep 0.05
done
"""

# The signal is $1. libvirtd removes its PID file at a clean stop, so read it once.
STOP = f"""
pid=$(cat {PID_FILE})
kill -"$1" "$pid"
for _ in $(seq 400); do
    kill -0 "$pid" 2>/dev/null || exit 0
    sleep 0.05
done
echo "libvirtd: process $pid still there after 20 s"
exit 1
"""


class Libvirtd:
    """Controls libvirtd in a namespace; `path` maps a path inside to one outside."""

    def __init__(self, host: Namespace, path: Callable[[str], Path]) -> None:
        self._host = host
        self._path = path

    def configure(self) -> None:
        """Writes libvirt's configuration, and the `default` network, not started."""
        self._path("/etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF)
        self._path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF)
        self._path("/etc/libvirt/qemu/networks/default.xml").write_text(DEFAULT_NETWORK)

    def start(self) -> None:
        """Starts the daemon and waits until it takes connections."""
        self._host.run(["sh", "-euc", START])

    def stop(self) -> None:
        """Asks the daemon to stop and waits for its end; guests and networks stay."""
        self._host.run(["sh", "-euc", STOP, "stop", "TERM"])

    def kill(self) -> None:
        """Kills the daemon with SIGKILL and waits for its end; guests and networks stay."""
        self._host.run(["sh", "-euc", STOP, "kill", "KILL"])
        self._path(PID_FILE).unlink()

    def virsh(self, *arguments: str, check: bool, timeout: float) -> str:
        """Runs virsh; its standard output. Raises CommandError if it fails and `check`."""
        return self._host.run(["virsh", "-q", *arguments], check=check, timeout=timeout).stdout
