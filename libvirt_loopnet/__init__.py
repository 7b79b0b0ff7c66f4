"""libvirt-loopnet: every libvirt guest at a stable address out of 127.0.0.0/8."""

__version__ = "0.1.0"
