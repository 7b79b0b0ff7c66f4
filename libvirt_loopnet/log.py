"""syslog: what a hook says is seen nowhere else unless it fails."""

from __future__ import annotations

import syslog


def warn(message: str) -> None:
    """Log one line as a warning of libvirt-loopnet."""
    _log(syslog.LOG_WARNING, message)


def info(message: str) -> None:
    """Log one line for the record."""
    _log(syslog.LOG_INFO, message)


def _log(level: int, message: str) -> None:
    syslog.openlog("libvirt-loopnet", syslog.LOG_PID, syslog.LOG_DAEMON)
    message = message.encode(errors="backslashreplace").decode()  # a name may be no UTF-8
    syslog.syslog(level, message.replace("\n", " ").replace("\0", ""))
