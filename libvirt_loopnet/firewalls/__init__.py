"""Other people's firewalls: what they must be told so that guests are reached, what of theirs is in the way.

Pure. Imports ruleset.
"""
