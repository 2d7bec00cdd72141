"""heliosd that counts, writes down and meters nothing: what the same daemon is compared with.

`python -m tests.bench.unwatched FLAGS` takes the flags of heliosd. Only who is told differs: requests go the same way.
"""

import sys
from typing import Any

import heliosd.daemon
import heliosd.telemetry.metrics
from heliosd.__main__ import main
from heliosd.state.journal import Journal
from heliosd.telemetry.metrics import Metrics
from heliosd.telemetry.reasons import Reasons


def _nothing(*_told: Any, **_more: Any) -> None:
    pass


class SilentJournal(Journal):
    note = _nothing


class SilentMetrics(Metrics):
    """Each of its answers to what happened does nothing; what shows it stays."""


class SilentReasons(Reasons):
    pass


for _loud, _silent in ((Metrics, SilentMetrics), (Reasons, SilentReasons)):
    for _name, _told in vars(_loud).items():
        if not _name.startswith("_") and callable(_told) and _name not in ("render", "families", "labels"):
            setattr(_silent, _name, _nothing)


def run() -> int:
    for name, silent in (("Journal", SilentJournal), ("Metrics", SilentMetrics)):
        setattr(heliosd.daemon, name, silent)
    heliosd.telemetry.metrics.Reasons = SilentReasons
    return int(main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(run())
