"""Guests of many kinds, with whole systems on disks: slower than tests/e2e, run by `make check-guests`."""
