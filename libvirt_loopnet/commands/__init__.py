"""The verbs of the command line, one module each, imported only when asked for.

A module has ``add_arguments(parser)`` and ``run(arguments)``, which returns the exit status or
raises a LoopnetError; its docstring is what ``--help`` shows. cli.py has the table of them.
"""
