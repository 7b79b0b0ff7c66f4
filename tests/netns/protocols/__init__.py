"""What works over loopnet and what doesn't: the tests here are the source of the table in the manual.

``python3 -m tests.netns.protocols`` prints it as it has to stand in packaging/man/libvirt-loopnet.7.
"""
