"""libvirt's <domain>: its NICs, moving and plugging them in again, and what a guest itself needs (setup, SMBIOS).

Imports xml and daemon.
"""
