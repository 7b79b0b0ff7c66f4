"""What inputs are made from: libvirt's own XML where it is there, our templates and golden files."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.golden import corpus
from tests.sandbox.sandbox import CHECKOUT

LARGEST = 64 << 10
DOMAINS = 600
"""Of libvirt's two thousand; those with a NIC come first."""

PORT = b"""\
<networkport>
  <uuid>21ea5a21-b13c-4b62-9d5a-9f1b0fb1e5a1</uuid>
  <owner>
    <name>vm1</name>
    <uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid>
  </owner>
  <mac address='52:54:00:12:34:56'/>
  <plug type='network' bridge='virbr1'/>
</networkport>
"""

DOMAIN = b"""\
<domain type='kvm' id='1'>
  <name>vm1</name>
  <uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid>
  <devices>
    <interface type='network'>
      <mac address='52:54:00:12:34:56'/>
      <source network='default' portid='21ea5a21-b13c-4b62-9d5a-9f1b0fb1e5a1' bridge='virbr0'/>
      <target dev='vnet0'/>
      <model type='virtio'/>
    </interface>
    <interface type='network'><source network="loopnet"/><mac address='52:54:00:12:34:57'/></interface>
    <interface type='bridge'><source bridge='br0'/></interface>
  </devices>
</domain>
"""

CONFIGS = (
    b'# comment\nlo = "keep"\nnames = hosts\nmove = [ "default:loopnet", "a:b" ]\n',
    b"lo='shrink'\nnames=\"off\" # why\nmove = [\n  'default:loopnet',\n]\n",
    b'move = "default:loopnet a:b"\n',
    b"",
)

RESERVATIONS = (
    b"# libvirt-loopnet reservations, version 1\n"
    b"5 52:54:00:12:34:56 4dea22b3-1d52-d8f3-2516-782e98ab3fa0 vm1\n"
    b"7 52:54:00:00:00:07 - -\n# end 2\n",
    b"# libvirt-loopnet reservations, version 1\n# end 0\n",
    b"# libvirt-loopnet reservations, version 2\n"
    b"5 52:54:00:12:34:56 4dea22b3-1d52-d8f3-2516-782e98ab3fa0 vm1 8080:80/tcp,192.0.2.7:53:5353/udp\n"
    b"7 52:54:00:00:00:07 - - -\n# end 2\n",
    b"# libvirt-loopnet reservations, version 4\n"
    b"5 52:54:00:12:34:56 - vm1 8080:80/tcp 20,30,40/shared\n7 52:54:00:00:00:07 - - - 40/shared\n# end 2\n",
    b"# libvirt-loopnet reservations, version 5\n# end 0\n",
)

HOSTS = (
    b"127.0.0.1 localhost\n::1 localhost ip6-localhost\n",
    b"127.0.0.1 localhost\n"
    b"# libvirt-loopnet: begin (do not edit; names of running guests)\n"
    b"127.1.0.5 vm1.loopnet # libvirt-loopnet: guest\n"
    b"# libvirt-loopnet: end\n",
    b"127.0.0.1 localhost\n"
    b"# libvirt-loopnet: begin (do not edit; names of running guests; no newline before)\n"
    b"127.1.0.5 vm1.loopnet # libvirt-loopnet: guest\n"
    b"# libvirt-loopnet: end\n",
    b"",
)


class Seeds(NamedTuple):
    """Inputs before mutation, by kind."""

    networks: list[bytes]
    """Any network definition."""
    own: list[bytes]
    """loopnet's networks, as a hook is given them."""
    status: list[bytes]
    """Files of libvirt's in /run: networks and ports."""
    domains: list[bytes]
    with_corpus: bool


def load() -> Seeds:
    """All seeds, always in the same order."""
    tests = corpus.place()
    with_corpus = tests.exists()
    networks = [path.read_bytes() for path in sorted((CHECKOUT / "xml-templates").glob("*.xml"))]
    networks += [p.read_bytes() for p in sorted((CHECKOUT / "tests/golden/rewrite").glob("*.xml"))]
    own = [_with_bridge(xml) for xml in networks if b"https://libvirt-loopnet.org/" in xml]
    domains = [DOMAIN]
    if with_corpus:
        networks += [path.read_bytes() for path in corpus.network_files(tests)]
        found = [path.read_bytes() for path in corpus.domain_files(tests)]
        found.sort(key=lambda xml: b"<source network=" not in xml)
        domains += [xml for xml in found if len(xml) < LARGEST][:DOMAINS]
    return Seeds(
        networks=networks,
        own=[b"<hookData>\n" + port + xml + b"</hookData>\n" for xml in own for port in (b"", PORT)],
        status=[PORT, *(b"<networkstatus>\n" + xml + b"</networkstatus>\n" for xml in own)],
        domains=domains,
        with_corpus=with_corpus,
    )


def _with_bridge(xml: bytes) -> bytes:
    """As libvirt gives it to hooks: without a declaration, the bridge chosen."""
    xml = re.sub(rb"<\?xml[^>]*>\s*|<!--.*?-->\s*", b"", xml, flags=re.DOTALL)
    return xml if b"<bridge" in xml else xml.replace(b"<ip ", b"<bridge name='virbr1'/>\n  <ip ", 1)
