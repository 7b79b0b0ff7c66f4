"""libvirt-loopnet: stable addresses in 127.0.0.0/8 for libvirt guests."""

__version__ = "0.1.0"
