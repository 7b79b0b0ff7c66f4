"""The state wanted, the state seen, and the steps from one to the other.

Pure. Imports ruleset, addresses and firewalls.
"""
