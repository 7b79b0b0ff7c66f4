"""XML read (tree, by expat) changed (document) and validated (schema; both by lxml), whatever it means.

Pure, but that schema.py reads libvirt's schemas. Imports nothing but the root's leaves.
"""
