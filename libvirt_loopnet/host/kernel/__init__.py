"""Links, neighbours, nftables and netfilter: what the kernel says by netlink, and what it is told.

Imports planning and reports, for the types of what it does and tells.
"""
