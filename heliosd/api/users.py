"""Who uses a revision."""

from heliosd.core.lifecycle import State
from heliosd.core.snapshot import Snapshot


def users_of(snapshot: Snapshot) -> dict[str, list[str]]:
    """The replicas that have not ended, by the revision they run."""
    users: dict[str, list[str]] = {}
    for replica in snapshot.replicas:
        if replica.state not in (State.STOPPED, State.FAILED):
            users.setdefault(replica.revision, []).append(replica.id)
    return users
