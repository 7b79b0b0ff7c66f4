"""Machines for tests: other systems' root file systems, in namespaces of their own, or on disks of guests (guest.py).

with Machine(root("trixie", ["systemd-sysv"])) as machine:    # boots in about three seconds
    machine.run("apt-get -q install /tmp/x.deb")
"""
