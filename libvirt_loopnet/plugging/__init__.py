"""Guests of a running network that lost their bridge are plugged in again; what counts is what is seen.

Imports daemon, guests and host.
"""
