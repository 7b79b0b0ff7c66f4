"""libvirt's daemons: which run, the connection to them, their files, and what their events have told us so far.

Imports networks, guests and xml.
"""
