"""Guests that boot over the network, and the host's web server they boot from."""

from __future__ import annotations

import http.server
import re
import socket
import threading
from pathlib import Path
from typing import Dict, List, Tuple

from .guest import Guest
from .namespaces import Namespace
from .world import Kind, World, template

NETWORK_BOOT = """\
    <boot dev='network'/>
    <bios useserial='no' rebootTimeout='-1'/>
"""


DHCP = """\
    <tftp root='{root}'/>
    <dhcp>
      <bootp file='{file}'/>
    </dhcp>
  </ip>
"""


def bootable(world: World, kind: Kind, root: str, file: str, ipv6_prefix: str = "") -> str:
    """A network of xml-templates/ with TFTP and a file to boot, as one would write it with virsh net-edit."""
    more = DHCP.format(root=root, file=file)
    text = re.sub(r"(<ip address='[\d.]+' netmask='255.255.255.0')/>\n", r"\1>\n" + more, template(kind.name))
    if ipv6_prefix:
        text = text.replace("<loopnet:network ", f"<loopnet:network ipv6='{ipv6_prefix}' ")
    return world.host.run(["loopnet", "rewrite"], input=text).stdout


class NetGuest(Guest):
    """A guest without kernel or disk: its firmware asks the network what to run.

    Of Guest's methods those that need no shell in the guest work from the beginning, the others when
    it has booted the guest image.
    """

    def xml(self) -> str:
        """The guest's XML, with the NIC's option ROM (iPXE) and nothing else to boot from."""
        text = re.sub(r" *<(kernel|initrd|cmdline)>.*</\1>\n", "", super().xml())
        text = text.replace("</type>\n", f"</type>\n{NETWORK_BOOT}")
        return text.replace("  <rom enabled='no'/>\n", "")


class WebServer:
    """HTTP on the host, on port 80 of all its addresses, for files; keeps who asked for what.

    As a context manager. `files` maps paths to what is sent: bytes, or a file's path.
    """

    def __init__(self, host: Namespace, files: Dict[str, object]) -> None:
        self.asked: List[Tuple[str, str]] = []
        """(the client's address, the path with its query)"""
        log = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(True)

            def do_HEAD(self) -> None:
                self._answer(False)

            def _answer(self, wanted: bool) -> None:
                content = files.get(self.path.partition("?")[0], b"")
                data = content.read_bytes() if isinstance(content, Path) else content
                assert isinstance(data, bytes)
                if wanted:
                    log.append((self.client_address[0], self.path))
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if wanted:
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Not to stderr."""

        self._server = http.server.ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = host.call(lambda: socket.create_server(("0.0.0.0", 80)))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> WebServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def who(self, path: str) -> List[str]:
        """The addresses that asked for `path`."""
        return [address for address, asked in self.asked if asked.partition("?")[0] == path]
