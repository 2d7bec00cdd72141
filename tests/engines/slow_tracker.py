"""A preload after which the tracker of shared memory takes its time to come up."""

import time
from multiprocessing import resource_tracker

_ensure = resource_tracker.ensure_running


def _late() -> None:
    time.sleep(0.1)
    _ensure()


resource_tracker.ensure_running = _late
