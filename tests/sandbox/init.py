"""First process of a sandbox: reaps, keeps the system log, and ends when its starter does.

Standard input is a pipe whose other end only the starter has: when the starter is gone, however
it went, this process leaves, and with it the kernel kills every process of the PID namespace.
"""

import os
import selectors
import signal
import socket
import sys
import time

SYSLOG = "/var/log/syslog"


def main() -> None:
    # The kernel reaps: libvirt takes a zombie for a process that refuses to die.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind("/dev/log")
    os.chmod("/dev/log", 0o666)  # dnsmasq is not root when it logs
    with open(SYSLOG, "wb", buffering=0) as file, selectors.DefaultSelector() as selector:
        selector.register(log, selectors.EVENT_READ)
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        print("ready", flush=True)
        os.dup2(os.open("/dev/null", os.O_WRONLY), sys.stdout.fileno())
        while True:
            for key, _ in selector.select():
                if key.fileobj is not log:
                    return
                message = log.recv(65536).rstrip(b"\n\0").partition(b">")[2]
                file.write(b"%.3f %s\n" % (time.time(), message))


main()
