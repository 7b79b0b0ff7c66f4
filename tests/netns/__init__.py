"""Packet tests: the hooks and the data plane in network namespaces, without libvirt."""
