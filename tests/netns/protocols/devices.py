"""Settings of network devices that ethtool sets."""

from __future__ import annotations

import array
import contextlib
import fcntl
import struct
from collections.abc import Iterator, Sequence

from tests.netns.wire import datagram_socket
from tests.sandbox import Namespace

SIOCETHTOOL = 0x8946
OFFLOADS = {"tx-checksum": 0x17, "scatter-gather": 0x19, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}
"""The ETHTOOL_S… commands of linux/ethtool.h, each after what it depends on."""


def set_offload(namespace: Namespace, device: str, command: int, on: bool) -> None:
    with datagram_socket(namespace) as control:
        value = array.array("B", struct.pack("=II", command, int(on)))
        request = struct.pack("16sP", device.encode(), value.buffer_info()[0])
        fcntl.ioctl(control.fileno(), SIOCETHTOOL, request)


@contextlib.contextmanager
def without(names: Sequence[str], devices: Sequence[tuple[Namespace, str]]) -> Iterator[None]:
    """The devices lack these OFFLOADS for a while."""
    try:
        for device in devices:
            for name in names:
                set_offload(*device, OFFLOADS[name], False)
        yield
    finally:
        for device in devices:
            for name, command in OFFLOADS.items():
                if name in names:
                    set_offload(*device, command, True)
