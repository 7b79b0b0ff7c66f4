"""`make bench`: how fast things are, as ratios of interleaved runs on this machine.

    python -m tests.bench [--quick] [NAME...]

Needs root. What is compared runs in turns (A B B A ...), so that whatever else the machine does
meets both alike; a figure is the median of the ratios of such pairs. Absolute times are not kept.
"""
