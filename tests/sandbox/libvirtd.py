"""The sandbox's own libvirt: configuration, start, stop, virsh. One daemon, libvirtd, or one for each driver."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Callable, Dict, Sequence

from .cache import cache_directory
from .holder import CommandError
from .namespaces import PYTHON, Namespace

KIND = "LOOPNET_DAEMONS"
"""Which kind a sandbox has: libvirtd, the machine's own and the default, or modular, built from source."""
LIBVIRTD, MODULAR = "libvirtd", "modular"
PID_FILE = "/run/libvirtd.pid"
STOP_SECONDS = 20.0
CAPABILITIES = "/var/cache/libvirt/qemu/capabilities"

CONF = """\
unix_sock_group = "root"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "2:file:{log}"
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
capability_filters = [ "cpu-unavailable-features" ]
"""
"""By the last line libvirt does not ask QEMU for each feature of the processor whether it has it: 400 questions, half a
second of a guest's three until it has its lease."""

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
for _ in $(seq 1000); do
    [ -S /run/libvirt/libvirt-sock ] && exit 0
    sleep 0.01
done
echo 'libvirtd: no socket after 10 s'
exit 1
"""

# A daemon takes commands before it has found its running guests again, and calls them "not running" until then. It
# lists them already while it has their hooks run, and a guest that is destroyed meanwhile ends, with that very error;
# what asks for a guest's memory has to wait for its turn, up to half a minute.
SETTLE = """
for _ in $(seq 100); do
    missing='' listed=" $(virsh -q list --name | tr '\n' ' ') "
    for file in /run/libvirt/qemu/*.xml; do
        name=${file##*/}
        case $listed in *" ${name%.xml} "*) ;; *) [ ! -e "$file" ] || missing=$name ;; esac
    done
    [ -n "$missing" ] || break
    sleep 0.05
done
for file in /run/libvirt/qemu/*.xml; do
    name=${file##*/}
    [ ! -e "$file" ] || virsh -q dommemstat "${name%.xml}" >/dev/null || true
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


# With its nftables backend libvirt 11 has the kernel complete checksums of DHCP answers, which only old clients
# miss, by an action that not every kernel has (act_csum), and starts no network without it.
TC = """\
#!/bin/sh
/run/sandbox/tc.real "$@" || case $* in *'action csum'*) ;; *) exit 1 ;; esac
"""


class Libvirtd:
    """Controls libvirtd in a namespace; `path` maps a path inside to one outside."""

    names: Sequence[str] = ("libvirtd",)
    """The daemons there are."""

    timeout = 120
    """Seconds without work after which a modular daemon ends, from its next start on; libvirt's units have 120."""

    def __init__(self, host: Namespace, path: Callable[[str], Path], firewall_backend: str = "") -> None:
        self._host = host
        self._path = path
        self._firewall_backend = firewall_backend

    def configure(self) -> None:
        """Writes libvirt's configuration, and the `default` network, not started."""
        if self._firewall_backend:
            backend = f'firewall_backend = "{self._firewall_backend}"\n'
            self._path("/etc/libvirt/network.conf").write_text(backend)
        for name in self.names:
            self._path(f"/etc/libvirt/{name}.conf").write_text(CONF.format(log=log(name)))
        self._path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF)
        self._path("/etc/libvirt/qemu/networks/default.xml").write_text(DEFAULT_NETWORK)
        # What it asks a QEMU of, which it looks at anew if that or itself is another by now (virQEMUCapsIsValid())
        kept = cache_directory() / "capabilities" / self.names[0]
        kept.mkdir(parents=True, exist_ok=True)
        self._host.sh(f"mkdir -p {CAPABILITIES}; mount --bind {shlex.quote(str(kept))} {CAPABILITIES}")

    def start(self, *, settled: bool = True) -> None:
        """Starts what takes connections; `settled` waits until running guests were found again."""
        self._start()
        if settled:
            self._host.run(["sh", "-euc", SETTLE])

    def stop(self) -> None:
        """Asks the daemons to stop and waits for their end; guests and networks stay."""
        self._host.run(["sh", "-euc", STOP, "stop", "TERM"])

    def kill(self) -> None:
        """Kills the daemons with SIGKILL and waits for their end; guests and networks stay."""
        self._host.run(["sh", "-euc", STOP, "kill", "KILL"])
        self._path(PID_FILE).unlink()

    def virsh(self, *arguments: str, check: bool, timeout: float) -> str:
        """Runs virsh; its standard output. Raises CommandError if it fails and `check`."""
        return self._host.run(["virsh", "-q", *arguments], check=check, timeout=timeout).stdout

    def _start(self) -> None:
        self._host.run(["sh", "-euc", START])


class Modular(Libvirtd):
    """virtqemud, virtnetworkd and virtproxyd, each started by the first who connects (activation.py)."""

    names = ("virtqemud", "virtnetworkd", "virtproxyd")

    def __init__(self, host: Namespace, path: Callable[[str], Path], firewall_backend: str = "") -> None:
        super().__init__(host, path, firewall_backend)
        self._activations: Dict[str, subprocess.Popen[str]] = {}

    def configure(self) -> None:
        """Puts the libvirt that has these daemons in the place of the machine's, and configures it."""
        from tests.machines.libvirt import built  # which imports from here

        self._host.sh(f"mount -t overlay -o lowerdir={shlex.quote(f'{built()}:/usr')} overlay /usr")
        shim = self._path("/run/sandbox/tc")
        shim.write_text(TC)
        shim.chmod(0o755)
        self._host.sh("cp /usr/sbin/tc /run/sandbox/tc.real; mount --bind /run/sandbox/tc /usr/sbin/tc")
        super().configure()

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGUSR1)

    def _start(self) -> None:
        script = str(Path(__file__).with_name("activation.py"))
        for name in self.names:
            activation = self._host.popen([PYTHON, "-I", script, name, str(self.timeout)])
            self._activations[name] = activation
            if not activation.stdout or activation.stdout.readline() != "ready\n":
                raise CommandError([script, name], activation.poll(), "", "not ready")

    def _end(self, number: int) -> None:
        for activation in self._activations.values():
            activation.send_signal(number)
        for name, activation in self._activations.items():
            try:
                output, _ = activation.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise CommandError([name], None, "", f"still there after {STOP_SECONDS} s") from None
            if activation.returncode != 0:
                raise CommandError([name], activation.returncode, output, "did not stop")
        self._activations.clear()


def log(daemon: str) -> str:
    """Where a daemon writes its log."""
    return f"/var/log/libvirt/{daemon}.log"


def make(kind: str, host: Namespace, path: Callable[[str], Path], firewall_backend: str) -> Libvirtd:
    """Those of `kind`; '' is what KIND asks for."""
    kinds = {LIBVIRTD: Libvirtd, MODULAR: Modular}
    kind = kind or os.environ.get(KIND) or LIBVIRTD
    if kind not in kinds:
        raise ValueError(f"{KIND}={kind}: there are {', '.join(kinds)}")
    return kinds[kind](host, path, firewall_backend)
