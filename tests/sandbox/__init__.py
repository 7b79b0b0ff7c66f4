"""A sandbox for tests and demo: real libvirt and real guests in namespaces of their own.

with Sandbox() as sandbox:
    sandbox.virsh("net-start", "default")
    guest = sandbox.guest("vm1", ["default"])
    guest.start()
    address = guest.wait_lease()
    sandbox.host.run(["curl", f"http://{address}/"])
"""

from .cache import BuildError
from .guest import Guest, GuestError
from .holder import CommandError
from .image import GuestImage, guest_image
from .namespaces import Namespace
from .sandbox import CHECKOUT, INTERNET, Sandbox

__all__ = [
    "CHECKOUT",
    "INTERNET",
    "BuildError",
    "CommandError",
    "Guest",
    "GuestError",
    "GuestImage",
    "Namespace",
    "Sandbox",
    "guest_image",
]
