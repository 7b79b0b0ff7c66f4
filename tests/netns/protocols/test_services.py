"""File servers, and what DHCP tells besides an address."""

from __future__ import annotations

import contextlib
import functools
import random
import socket
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.netns import frames
from tests.netns.lab import eventually
from tests.netns.wire import PATIENCE, ask_udp, datagram_socket, stream_socket
from tests.sandbox import Namespace

from .field import PORT, Field
from .table import GUEST_HOST, GUESTS, HOST_GUEST, OUT, shows

DHCP_INFORM, PARAMETERS, NTP, VENDOR, DOMAIN_SEARCH = 8, 55, 42, 43, 119
OWN_OPTION = (
    "dnsmasq puts its own address here: in native mode the host's loop address, to which guests cannot connect."
    " Write the gateway's transit address, 247.1.0.1, instead."
)
SMB_CONF = """\
[global]
    workgroup = WORKGROUP
    server role = standalone server
    map to guest = Bad User
    guest account = root
    disable netbios = yes
    smb ports = 445
    load printers = no
    passdb backend = tdbsam
    private dir = {0}
    state directory = {0}
    cache directory = {0}
    lock directory = {0}
    pid directory = {0}
    ncalrpc dir = {0}/ncalrpc
    log file = {0}/log
[share]
    path = /run/share
    guest ok = yes
    guest only = yes
    read only = no
"""
GANESHA_CONF = """\
NFS_CORE_PARAM {{ Protocols = 4; mount_path_pseudo = true; Enable_NLM = false; Enable_RQUOTA = false;
    allow_set_io_flusher_fail = true; }}
NFSv4 {{ Graceless = true; RecoveryRoot = {0}; }}
EXPORT {{
    Export_Id = 1; Path = /run/share; Pseudo = /share; Access_Type = RW; Squash = No_Root_Squash;
    SecType = sys; Protocols = 4; Transports = TCP;
    FSAL {{ Name = VFS; }}
}}
"""


class Place(NamedTuple):
    """Where a server runs, and its directory."""

    namespace: Namespace
    directory: str


@pytest.fixture(scope="module")
def places(field: Field) -> list[Place]:
    """The host, the guests and the internet, all with the same share."""
    namespaces = (field.host, field.one.namespace, field.two.namespace, field.far)
    made = [Place(namespace, f"/run/office/{number}") for number, namespace in enumerate(namespaces)]
    field.host.sh("mkdir -p -m 777 /run/share; mkdir -p /run/office /run/ganesha")
    for place in made:
        field.host.sh(f"mkdir {place.directory} {place.directory}/ncalrpc")
        (field.lab.path(place.directory) / "smb").write_text(SMB_CONF.format(place.directory))
        (field.lab.path(place.directory) / "nfs").write_text(GANESHA_CONF.format(place.directory))
    field.lab.path("/run/share/file").write_bytes(random.Random(5).randbytes(3 << 20))
    return made


@contextlib.contextmanager
def serving(places: list[Place], port: int, argv: list[str]) -> Iterator[None]:
    """``argv``, with {} for the directory, runs in all places and serves on the port."""
    with contextlib.ExitStack() as stack:
        for place in places:
            command = [word.format(place.directory) for word in argv]
            daemon = stack.enter_context(place.namespace.popen(command, stdout=subprocess.DEVNULL))
            stack.callback(daemon.kill)
        for place in places:
            eventually(functools.partial(listens, place.namespace, port), 30)
        yield


def listens(namespace: Namespace, port: int) -> bool:
    with stream_socket(namespace) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@shows("SMB", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_smb(field: Field, places: list[Place]) -> bool:
    """Samba on both sides: a file there and back."""
    argv = ["smbd", "--foreground", "--no-process-group", "--configfile={}/smb", "--debug-stdout"]
    with serving(places, 445, argv):
        for begins, _, address, _ in field.ways.values():
            field.host.sh("rm -f /run/share/copy /run/got")
            commands = "get file /run/got; put /run/got copy"
            begins.run(
                ["smbclient", "--configfile=/run/office/0/smb", "-N", f"//{address}/share", "-c", commands]
            )
            field.host.sh("cmp /run/got /run/share/file; cmp /run/share/copy /run/share/file")
    return True


@shows("NFS version 4", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_nfs(field: Field, places: list[Place]) -> bool:
    """NFS-Ganesha serves, libnfs mounts: as the kernel's own, over TCP alone and with nothing called back."""
    argv = ["ganesha.nfsd", "-F", "-f", "{}/nfs", "-p", "{}/pid", "-L", "{}/nfs.log"]
    with serving(places, 2049, argv):
        if "resolve_posix_filesystem" in (field.lab.path(places[0].directory) / "nfs.log").read_text():
            pytest.skip("this NFS-Ganesha (Debian 13's) exports no file system that is in memory")
        for begins, _, address, _ in field.ways.values():
            field.host.sh("rm -f /run/got")
            url = f"nfs://{address}/share"
            assert " file\n" in begins.run(["nfs-ls", f"{url}?version=4"]).stdout
            begins.run(["nfs-cp", f"{url}/file?version=4", "/run/got"])
            field.host.sh("cmp /run/got /run/share/file")
    return True


# --- DHCP ------------------------------------------------------------------------------------------------


def informed(field: Field) -> dict[int, bytes]:
    """What DHCP tells the guest ``one`` besides its address."""
    one = field.one
    with datagram_socket(one.namespace) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        client.bind(("0.0.0.0", 68))
        client.settimeout(PATIENCE)
        options = frames.dhcp_option(frames.DHCP_TYPE, bytes((DHCP_INFORM,)))
        options += frames.dhcp_option(PARAMETERS, bytes((NTP, DOMAIN_SEARCH, VENDOR)))
        options += frames.dhcp_option(12, b"a-name") + frames.dhcp_option(60, b"MSFT 5.0")
        message = frames.dhcp(frames.REQUEST, one.mac, options, own=one.address, broadcast=False)
        client.sendto(message, ("255.255.255.255", 67))
        return frames.dhcp_answer(client.recv(1500))[1]


@shows("DHCP options", GUEST_HOST)
def test_dhcp_options(field: Field) -> bool:
    answer = informed(field)
    return (answer[DOMAIN_SEARCH], answer[VENDOR]) == (b"\7example\3org\0", b"\1\2\3")


@shows("DHCP option with 0.0.0.0", GUEST_HOST, native=False, why=OWN_OPTION)
def test_dhcp_option_that_names_the_server(field: Field) -> bool:
    """As in ntp-server,0.0.0.0: whether the guest can reach a service of the host at what it is told."""
    told = socket.inet_ntoa(informed(field)[NTP])
    assert told == (field.host_number if field.native else field.one.gateway)
    patience = 0.3 if field.native else PATIENCE
    try:
        return ask_udp(field.one.namespace, (told, PORT), timeout=patience)[1] == field.one.transit
    except TimeoutError:
        return False
