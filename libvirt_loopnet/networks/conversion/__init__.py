"""A network of libvirt's becomes ours (convert) and is given back (revert), also under running guests.

Imports networks, guests, daemon, plugging, addresses and host.kernel.
"""
