"""What kind of reason a sentence of the scheduler's is: a word out of few, to count by. Pure.

The scheduler gives its reasons in sentences for people. Each begins, or has in it, what its kind is told by; a
sentence that is not known is `other`, and a test has the scenarios say none that is.
"""

EVICTIONS = {
    "ahead": "room for a model that is started before anyone asks",
    "pin": "room for a pinned model",
    "replica": "room for one more replica of a busy model",
    "room": "room for a model that was asked for",
    "patience": "it stood in the way of an older request for too long",
    "idle": "nobody asked for as long as it is kept",
    "operator": "an operator asked for it",
    "drain": "the node goes down",
    "moved": "another replica of the model starts elsewhere instead",
    "growth": "it starts again with a larger KV cache",
    "residue": "asleep it kept too much of its memory",
    "host_memory": "host memory was nearly used up",
    "other": "anything else",
}
"""Why a replica went down a step of the ladder."""

WAITS = {
    "starting": "its replica is being started",
    "waking": "its replica is being woken, or falls asleep first",
    "busy": "all its replicas work on as many requests as they may",
    "making_room": "others are leaving for it",
    "held": "others hold the memory, and are served first",
    "turn": "an older request waits for the same memory",
    "foreign": "processes that are not ours hold the memory, or soon will",
    "pinned": "pinned models hold the memory",
    "pause": "its starts failed, and it is tried again soon",
    "fault": "the devices that could hold it do not work now",
    "arriving": "its model is still on its way into the store",
    "other": "anything else",
}
"""What a request waits for."""

_EVICTIONS = (
    ("which is pinned", "pin"),
    ("ahead of requests", "ahead"),
    ("room for one more", "replica"),
    ("starts instead", "moved"),
    ("room for", "room"),
    ("in the way of", "patience"),
    ("idle for", "idle"),
    ("an operator asked", "operator"),
    ("the node is draining", "drain"),
    ("its KV cache of", "growth"),
    ("its memory did not come back", "residue"),
    ("host memory is nearly", "host_memory"),
)
_WAITS = (
    (" and is tried again after a pause", "pause"),
    ("making room", "making_room"),
    (" is starting", "starting"),
    (" is planned", "starting"),
    (" is fetching", "starting"),
    (" is waking", "waking"),
    (" is falling asleep", "waking"),
    (" works on ", "busy"),
    ("a request before it waits for", "turn"),
    ("of foreign memory", "foreign"),
    ("foreign processes hold", "foreign"),
    ("are pinned there", "pinned"),
    ("is out for now", "fault"),
    ("the rest is held by", "held"),
    (" is being fetched", "arriving"),
    (" is being converted", "arriving"),
    (" is being verified", "arriving"),
    (" is looked for", "arriving"),
    (" is here", "arriving"),
)
AGAIN = "no lease is left"
"""A replica that was drained goes on: why it had to was told when it began to drain."""


def eviction_cause(reason: str) -> str | None:
    """A word of EVICTIONS; None where the sentence only goes on with what another has told."""
    return None if reason == AGAIN else _kind(_EVICTIONS, reason)


def wait_cause(reason: str) -> str:
    """A word of WAITS."""
    return _kind(_WAITS, reason)


def _kind(told_by: tuple[tuple[str, str], ...], reason: str) -> str:
    return next((kind for words, kind in told_by if words in reason), "other")
