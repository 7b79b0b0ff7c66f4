"""XML read (tree, by expat) changed (document) and validated (schema; both by lxml), whatever it means.

Pure. Imports nothing but the root's leaves.
"""
