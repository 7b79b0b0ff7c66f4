"""libvirt's <network>: reading it, making a new one, rewriting any, and what is refused or warned of.

Pure. Imports xml and addresses. Changing a network of a running libvirt is networks.conversion.
"""
