"""Host numbers: who gets which, where that is kept, the ports published on them; what guests and taps are called.

Imports the root's leaves only; store.py and ula.py alone touch the disk.
"""
