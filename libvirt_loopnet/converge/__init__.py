"""Looks at the host, plans, and does what is missing: the whole host at once.

Imports planning, ruleset, host, daemon, networks, guests, firewalls and addresses.
"""
