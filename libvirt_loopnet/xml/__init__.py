"""XML read and edited, whatever it means.

Pure. Imports nothing but the root's leaves.
"""
