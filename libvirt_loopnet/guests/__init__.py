"""libvirt's <domain>: its NICs, moving them, and what a guest itself needs (setup, SMBIOS).

Pure. Imports xml.
"""
