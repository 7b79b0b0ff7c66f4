"""What libvirt's events mean for the host, in the order in which things happen. Nothing imports this but hook.py."""
