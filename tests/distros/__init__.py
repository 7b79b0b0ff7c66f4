"""Guests as people have them: Debian systems with this or that network configuration (make check-guests)."""
