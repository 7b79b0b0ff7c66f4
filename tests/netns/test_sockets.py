"""Sockets that wait, as netlink tells of them and as /proc does, which is read where the kernel has no tcp_diag."""

from __future__ import annotations

import json

from .lab import Lab

LOOK = """\
import json, os, socket
from libvirt_loopnet.errors import HostError
from libvirt_loopnet.host import sockets
from libvirt_loopnet.host.kernel import netlink

v4, v6, tcp, udp = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
made, inodes = [], {}
for number, (family, kind, address) in enumerate([
    (v4, tcp, "127.0.0.1"), (v4, tcp, "0.0.0.0"), (v6, tcp, "::"), (v6, tcp, "::1"), (v6, tcp, "::ffff:127.0.0.1"),
    (v4, udp, "127.0.0.1"), (v6, udp, "::"), (v6, udp, "::ffff:127.0.0.1"),
]):
    made.append(socket.socket(family, kind))
    made[-1].bind((address, 7000 + number))
    if kind == tcp:
        made[-1].listen()
        inodes[7000 + number] = str(os.fstat(made[-1].fileno()).st_ino)
made.append(socket.create_connection(("127.0.0.1", 7000)))  # none that waits, at either end
made += [made[0].accept()[0], socket.socket(v4, tcp), socket.socket(v4, udp)]
made[-2].bind(("127.0.0.1", 7010))
made[-1].connect(("127.0.0.1", 9))
for number in range(200):  # more than an answer of netlink holds
    made.append(socket.socket(v4, tcp))
    made[-1].bind(("127.0.0.1", 8000 + number))
    made[-1].listen()
told = sockets.waiting()
looks = []
def refused(*_):
    looks.append(1)
    raise HostError("no tcp_diag")
sockets.listening = refused
listed = sockets.waiting()
print(json.dumps([
    sorted((each.protocol, str(each.address), each.port) for each in told),
    sorted(told, key=str) == sorted(listed, key=str) and len(looks) == 1,
    all(inodes[each.port] == each.inode for each in told if each.port in inodes),
]))
"""
NO_MODULE = """\
import socket
from libvirt_loopnet.errors import HostError
from libvirt_loopnet.host.kernel import listening
class Request:
    pack = staticmethod(lambda family, protocol, states: bytes([family, 200]) + bytes(54))  # no module is for it
listening._REQUEST = Request
try:
    print([*listening.listening()])
except HostError as error:
    print(error)
"""


def test_both_ways_tell_the_same() -> None:
    with Lab() as lab:
        waiting, same, found = json.loads(lab.host.python(LOOK))
    assert [each for each in waiting if each[2] < 8000] == [
        ["tcp", "0.0.0.0", 7001],
        ["tcp", "0.0.0.0", 7002],
        ["tcp", "127.0.0.1", 7000],
        ["tcp", "127.0.0.1", 7004],
        ["tcp", "::", 7002],
        ["tcp", "::1", 7003],
        ["udp", "0.0.0.0", 7006],
        ["udp", "127.0.0.1", 7005],
        ["udp", "127.0.0.1", 7007],
        ["udp", "::", 7006],
    ]
    assert [each[2] for each in waiting if each[2] >= 8000] == [*range(8000, 8200)]
    assert same
    assert found


def test_a_kernel_that_cannot_tell() -> None:
    """It answers as one without tcp_diag: ENOENT, which is not that nothing listens."""
    with Lab() as lab:
        said = lab.host.python(NO_MODULE)
    assert said == "sockets by netlink can't be read: No such file or directory\n"
