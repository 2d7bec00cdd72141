"""How busy this node is, as its peers are told."""

from heliosd.cluster.member import Load
from heliosd.core.lifecycle import State
from heliosd.core.snapshot import Snapshot


def load_of(snapshot: Snapshot) -> Load:
    """The models that are ready, those in use and the latest used first; the freest device; who waits."""
    ready = sorted(
        (each for each in snapshot.replicas if each.state is State.READY),
        key=lambda each: (each.idle_since is not None, -(each.idle_since or 0.0), each.id),
    )
    usable = [each for each in snapshot.devices if each.reading is None or each.reading.fault is None]
    free_bytes = max((each.free_bytes for each in usable), default=0)
    return Load.of(dict.fromkeys(each.model for each in ready), free_bytes, len(snapshot.waiting))
