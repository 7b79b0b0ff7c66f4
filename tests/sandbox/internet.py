"""The internet of a sandbox: HTTP, UDP echo and DNS on one address (the first argument).

Returns once all ports are bound; a forked process goes on serving.
"""

import os
import socket
import struct
import sys
import threading
from typing import Callable, Tuple

NAMES = (b"\x08internet\x07example\x00", b"\x03www\x07example\x03com\x00")

Peer = Tuple[str, int]


def answer_http(listener: socket.socket) -> None:
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=_answer_one, args=(connection, peer), daemon=True).start()


def _answer_one(connection: socket.socket, peer: Peer) -> None:
    with connection:
        connection.settimeout(10)
        request = b""
        try:
            while b"\r\n\r\n" not in request:
                received = connection.recv(4096)
                if not received:
                    return
                request += received
            body = f"hello from the internet; you are {peer[0]}\n"
            connection.sendall(
                "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
        except OSError:
            return


def echo(payload: bytes, peer: Peer) -> bytes:
    return f"{peer[0]}:{peer[1]} ".encode() + payload


def answer_dns(query: bytes, _peer: Peer) -> bytes:
    """One A record with the server's own address for the names it knows, else NXDOMAIN."""
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    known = question[:-4].lower() in NAMES
    wanted = known and question[-4:-2] == b"\0\1"
    header = query[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, int(wanted), 0, 0)
    record = b"\xc0\x0c\0\1\0\1" + struct.pack("!IH", 60, 4) + socket.inet_aton(sys.argv[1])
    return header + question + (record if wanted else b"")


def answer_datagrams(server: socket.socket, answer: Callable[[bytes, Peer], bytes]) -> None:
    while True:
        payload, peer = server.recvfrom(65535)
        try:
            server.sendto(answer(payload, peer), peer)
        except (OSError, ValueError):
            continue


def bound(kind: int, port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((sys.argv[1], port))
    return server


def main() -> None:
    http = bound(socket.SOCK_STREAM, 80)
    http.listen(64)
    echo_server = bound(socket.SOCK_DGRAM, 7)
    dns = bound(socket.SOCK_DGRAM, 53)
    if os.fork():
        os._exit(0)
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.setsid()
    threading.Thread(target=answer_datagrams, args=(echo_server, echo), daemon=True).start()
    threading.Thread(target=answer_datagrams, args=(dns, answer_dns), daemon=True).start()
    answer_http(http)


main()
