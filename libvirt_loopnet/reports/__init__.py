"""What is told to people: doctor's findings and the graph.

Pure. Imports networks and firewalls.
"""
