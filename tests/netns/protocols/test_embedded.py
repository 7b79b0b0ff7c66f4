"""Protocols that carry addresses in their data, which nobody rewrites: FTP, and telephony by SIP."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from tests.netns.lab import eventually
from tests.netns.wire import datagram_socket, stream_socket
from tests.sandbox import Namespace

from .field import Field
from .table import GUEST_HOST, GUESTS, HOST_GUEST, OUT, shows

FILE = "hello from the server\n"
# A user whose home there is everywhere; nobody's, /nonexistent, was seen to be there and not to be.
VSFTPD = """\
listen=YES
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root=/run/ftp
ftp_username=daemon
nopriv_user=nobody
secure_chroot_dir=/run/ftp-empty
seccomp_sandbox=NO
"""
# What makes the kernel read along, for all connections to port 21 that this host routes or begins.
HELPER = """\
table ip ftp-helper {
	ct helper ftp { type "ftp" protocol tcp; }
	chain prerouting { type filter hook prerouting priority -150; tcp dport 21 ct helper set "ftp"; }
	chain output { type filter hook output priority -150; tcp dport 21 ct helper set "ftp"; }
}
"""
OWN_ADDRESS = (
    "The server names its own address, which is a different one on the host. curl and browsers work all the same:"
    " they use EPSV, or connect to the address of the first connection."
)
ACTIVE = (
    "The client names its own address, and the server, which knows it by another, refuses. The kernel's"
    " nf_conntrack_ftp on the host does not help: it also looks for the address that it knows."
)
BEGINS_TO_HOST = (
    "The server has to open the second connection, and guests cannot connect to the host's loop address."
    " In native mode, nf_conntrack_ftp on the host makes it work."
)
CONTACT = (
    "Contact, Via and SDP contain the guest's own address: in mapped mode, that is nobody's on the host, or"
    " somebody else's on its LAN. On the internet, STUN, rport or a proxy help, as behind any NAT."
)


@pytest.fixture(scope="module", autouse=True)
def ftp_servers(field: Field) -> Iterator[None]:
    """On the host, in the guests and on the internet."""
    field.host.sh("mkdir -p /run/ftp /run/ftp-empty")
    field.lab.path("/run/ftp/hello").write_text(FILE)
    field.lab.path("/run/vsftpd.conf").write_text(VSFTPD)
    places = (field.host, field.one.namespace, field.two.namespace, field.far)
    with contextlib.ExitStack() as stack:
        for namespace in places:
            daemon = stack.enter_context(namespace.popen(["vsftpd", "/run/vsftpd.conf"]))
            stack.callback(daemon.terminate)
        for namespace in places:
            eventually(lambda namespace=namespace: listens(namespace, 21), 10)  # type: ignore[misc]
        yield


def listens(namespace: Namespace, port: int) -> bool:
    with stream_socket(namespace) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def helper(field: Field) -> Iterator[None]:
    field.host.run(["nft", "-f", "-"], input=HELPER)
    try:
        yield
    finally:
        field.host.run(["nft", "delete", "table", "ip", "ftp-helper"])


def fetch(begins: Namespace, address: str, *options: str) -> str:
    """The file by curl's FTP; if there was none, what client and server said to each other."""
    argv = ["curl", "-sSv", "--max-time", "20", *options, f"ftp://{address}/hello"]
    done = begins.run(argv, check=False)
    return done.stdout if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("options", [(), ("--disable-epsv",)], ids=["EPSV", "PASV"])
@shows("FTP, passive", HOST_GUEST, GUEST_HOST, GUESTS, OUT)
def test_ftp_passive(field: Field, options: tuple[str, ...]) -> bool:
    for begins, _, address, _ in field.ways.values():
        assert fetch(begins, address, *options) == FILE
    return True


@shows("FTP, PASV is believed", HOST_GUEST, mapped=False, why=OWN_ADDRESS)
def test_ftp_passive_with_a_strict_client(field: Field) -> bool:
    said = fetch(
        field.host, field.one.loop, "--disable-epsv", "--no-ftp-skip-pasv-ip", "--connect-timeout", "1"
    )
    own = field.one.address.replace(".", ",")
    assert f"227 Entering Passive Mode ({own}," in said or said == FILE
    return said == FILE


ACTIVE_OPTIONS = pytest.mark.parametrize(
    "options", [("--ftp-port", "-"), ("--ftp-port", "-", "--disable-eprt")], ids=["EPRT", "PORT"]
)


@ACTIVE_OPTIONS
@shows("FTP, active", GUESTS)
def test_ftp_active_between_guests(field: Field, options: tuple[str, ...]) -> bool:
    return fetch(field.one.namespace, field.two.address, *options) == FILE


@ACTIVE_OPTIONS
@shows("FTP, active", HOST_GUEST, mapped=False, native=False, why=BEGINS_TO_HOST)
def test_ftp_active_from_host(field: Field, options: tuple[str, ...]) -> bool:
    if field.native:
        with helper(field):
            assert fetch(field.host, field.one.loop, *options) == FILE
    # The server's SYNs go unanswered for as long as we wait.
    said = fetch(field.host, field.one.loop, *options, "--max-time", "1")
    assert said == FILE or ("200 " if field.native else "500 Illegal PORT") in said
    return said == FILE


@ACTIVE_OPTIONS
@pytest.mark.parametrize("way", [GUEST_HOST, OUT])
@shows("FTP, active", GUEST_HOST, OUT, mapped=False, native=False, why=ACTIVE)
def test_ftp_active_from_guest(field: Field, way: str, options: tuple[str, ...]) -> bool:
    begins, _, address, _ = field.ways[way]
    with helper(field):
        assert "500 Illegal PORT command" in fetch(begins, address, *options)
    said = fetch(begins, address, *options)
    assert said == FILE or "500 Illegal PORT command" in said
    return said == FILE


# --- SIP -----------------------------------------------------------------------------------------------


def reached_at_contact(begins: Namespace, answers: Namespace, address: str, own: str) -> bool:
    """A telephone registers from its port 5060 and is called at the Contact that it gave."""
    register = f"REGISTER sip:{address} SIP/2.0\r\nContact: <sip:vm@{own}:5060>\r\n\r\n"
    with (
        datagram_socket(begins, ("0.0.0.0", 5060)) as telephone,
        datagram_socket(answers, ("0.0.0.0", 5061)) as registrar,
    ):
        telephone.settimeout(0.3)
        registrar.settimeout(2)
        telephone.sendto(register.encode(), (address, 5061))
        contact = re.search(r"Contact: <sip:vm@([\d.]+):5060>", registrar.recv(2000).decode())
        assert contact
        assert contact.group(1) == own  # as it was said, whatever became of the addresses outside
        try:
            registrar.sendto(b"INVITE", (contact.group(1), 5060))
            return telephone.recv(2000) == b"INVITE"
        except OSError:
            return False


@shows("SIP", GUESTS)
def test_sip_between_guests(field: Field) -> bool:
    begins, answers, address, _ = field.ways[GUESTS]
    return reached_at_contact(begins, answers, address, field.one.address)


@shows("SIP", GUEST_HOST, mapped=False, why=CONTACT)
def test_sip_to_host(field: Field) -> bool:
    begins, answers, address, _ = field.ways[GUEST_HOST]
    return reached_at_contact(begins, answers, address, field.one.address)


@shows("SIP", OUT, mapped=False, native=False, why=CONTACT)
def test_sip_out(field: Field) -> bool:
    begins, answers, address, _ = field.ways[OUT]
    return reached_at_contact(begins, answers, address, field.one.address)
