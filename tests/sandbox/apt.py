"""apt, with what it makes of its lists kept in its own cache: containers have it make that anew for each command, which
takes longer than the command."""

from __future__ import annotations

from .cache import command

KEEP = "-oDir::Cache::pkgcache=pkgcache.bin"
"""apt's default."""


def apt(program: str, *arguments: str, directory: str = "/") -> str:
    """Runs `apt-get` or `apt-cache` in a directory; its standard output. Raises BuildError with what it printed."""
    return command([program, KEEP, *arguments], directory)
