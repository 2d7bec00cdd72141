"""Tracing that is off costs nothing."""

import subprocess
import sys


def test_the_daemon_does_not_load_the_library_by_itself() -> None:
    program = "import heliosd.daemon, sys; print(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "False\n"
    )
