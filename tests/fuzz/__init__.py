"""Mutated input for everything that reads what others wrote.

``python -m tests.fuzz`` runs it; targets.py says what must hold, mutate.py how inputs are made.
"""
