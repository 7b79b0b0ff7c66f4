"""Host numbers: who gets which, where that is kept, the ports published on them, and guests' names.

Imports the root's leaves only; store.py and ula.py alone touch the disk.
"""
