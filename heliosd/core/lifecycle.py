"""The life of a replica as one table. An illegal transition is a bug of ours, so it raises."""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    PLANNED = "planned"
    FETCHING = "fetching"
    STARTING = "starting"
    READY = "ready"
    SLEEPING = "sleeping"
    ASLEEP = "asleep"
    WAKING = "waking"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"
    STOPPED = "stopped"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PLANNED: frozenset({State.FETCHING, State.STARTING, State.STOPPED}),
    State.FETCHING: frozenset({State.STARTING, State.FAILED, State.STOPPED}),
    State.STARTING: frozenset({State.READY, State.FAILED, State.STOPPING}),
    State.READY: frozenset({State.SLEEPING, State.DRAINING, State.FAILED}),
    State.SLEEPING: frozenset({State.ASLEEP, State.STOPPING, State.FAILED}),
    State.ASLEEP: frozenset({State.WAKING, State.STOPPING, State.FAILED}),
    State.WAKING: frozenset({State.READY, State.STOPPING, State.FAILED}),
    State.DRAINING: frozenset({State.SLEEPING, State.STOPPING, State.FAILED}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.FAILED: frozenset({State.PLANNED, State.STOPPED}),
    State.STOPPED: frozenset(),
}

COMING = frozenset({State.PLANNED, State.FETCHING, State.STARTING, State.WAKING})
"""On the way to ready."""
LEAVING = frozenset({State.DRAINING, State.SLEEPING, State.STOPPING})
"""On the way out, or down; its memory will come back."""


class IllegalTransition(Exception):
    """A replica was asked to become what its state does not allow."""


def advance(now: State, to: State) -> State:
    """Return `to` if the table allows it. Raises IllegalTransition otherwise."""
    if to not in TRANSITIONS[now]:
        raise IllegalTransition(f"cannot make a {now} replica {to}")
    return to
