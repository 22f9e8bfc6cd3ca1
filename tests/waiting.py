"""Waiting for what another process does."""

import time


def wait_for(condition, seconds=180):
    """Return what ``condition()`` returns once it is true; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")
