"""Stands for systemd in a sandbox: holds a libvirt daemon's sockets, and runs it when somebody connects.

usage: activation.py DAEMON SECONDS. As the units that libvirt ships have it (DAEMON.socket, DAEMON.service): the
daemon gets its sockets from here, ends by itself after SECONDS without work (--timeout), and is started again
by the next connection; one that fails or is killed, at once (Restart=on-failure), but not again and again:
then nobody listens any more (StartLimitBurst=). SIGTERM and SIGUSR1 stop it
for good, the first in good order, the second by SIGKILL, and take the sockets away. Prints "ready".
"""

import fcntl
import os
import selectors
import signal
import socket
import sys
import time
from types import FrameType
from typing import Iterable, List, NoReturn, Optional, Tuple

RUN = "/run/libvirt"
SOCKETS = (("", "-sock", 0o600), ("-ro", "-sock-ro", 0o666), ("-admin", "-admin-sock", 0o600))
"""How the units' names end, their sockets', and SocketMode= (libvirt's src/virtd*.socket.in, without polkit)."""
PREFIXES = {"virtproxyd": "libvirt"}
"""It has libvirtd's sockets; all others have those of their own name."""
REST_SECONDS = 0.1
"""systemd's RestartSec."""
FIRST = 3
"""SD_LISTEN_FDS_START"""
HIGH = 64
BURST = 5
"""In how many starts a daemon may fail, one after the other."""
ENDING = (signal.SIGTERM, signal.SIGUSR1)


def main(daemon: str, seconds: str) -> NoReturn:
    """Runs the daemon whenever it is needed."""
    sockets = listen(daemon)
    paths = [place.getsockname() for _, place in sockets]
    child = 0

    def end(number: int, _frame: Optional[FrameType]) -> None:
        for path in paths:
            os.unlink(path)
        if child:
            os.kill(child, signal.SIGTERM if number == signal.SIGTERM else signal.SIGKILL)
            os.waitpid(child, 0)
        os._exit(0)

    for number in ENDING:
        signal.signal(number, end)
    print("ready", flush=True)
    failed = 0
    while failed < BURST:
        if not failed:
            wait(place for _, place in sockets)
        # Else a signal could come before it is known whom to end.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        child = os.fork()
        if not child:
            become(daemon, seconds, sockets)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        failed = failed + 1 if os.waitpid(child, 0)[1] else 0
        child = 0
        time.sleep(REST_SECONDS)
    for _, place in sockets:
        place.close()
    while True:
        signal.pause()


def listen(daemon: str) -> List[Tuple[str, socket.socket]]:
    """The units' names, and their sockets."""
    prefix, made = PREFIXES.get(daemon, daemon), []
    for unit, suffix, mode in SOCKETS:
        place, path = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), f"{RUN}/{prefix}{suffix}"
        place.bind(path)
        os.chmod(path, mode)
        place.listen(128)
        made.append((f"{daemon}{unit}.socket", place))
    return made


def wait(sockets: Iterable[socket.socket]) -> None:
    """Until somebody connects."""
    with selectors.DefaultSelector() as selector:
        for place in sockets:
            selector.register(place, selectors.EVENT_READ)
        selector.select()


def become(daemon: str, seconds: str, sockets: List[Tuple[str, socket.socket]]) -> NoReturn:
    """The child is the daemon from here on; it finds its sockets as sd_listen_fds(3) says."""
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    output = os.open(f"/var/log/libvirt/{daemon}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    # By way of high numbers, since some may have those that others shall have.
    spare = [fcntl.fcntl(place, fcntl.F_DUPFD, HIGH) for _, place in sockets]
    for wanted, descriptor in enumerate((output, output, *spare), 1):
        os.dup2(descriptor, wanted)
    os.closerange(FIRST + len(spare), HIGH + len(spare))
    os.environ.update(
        LISTEN_PID=str(os.getpid()),
        LISTEN_FDS=str(len(spare)),
        LISTEN_FDNAMES=":".join(unit for unit, _ in sockets),
    )
    os.execvp(daemon, [daemon, "--timeout", seconds])


main(*sys.argv[1:])
