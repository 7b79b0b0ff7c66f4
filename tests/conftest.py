"""For all tests."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# Programs that tests start and interrupt inherit what is ignored, as it is under nohup or behind a shell's "&".
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Speed is measured by the benchmarks, as ratios; a slow machine is no fault of a test's.
settings.register_profile(
    "loopnet", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("loopnet")
