"""Which module has which command, so that a command loads its own alone: all of them together take longer than `ls`."""

from collections.abc import Sequence

MODULES = {
    "run": ("run",),
    "models": ("pull", "import", "ls", "show", "alias", "rm"),
    "revisions": ("revisions", "rollback", "diff"),
    "cache": ("cache",),
    "gc": ("gc",),
    "replicas": ("ps", "load", "stop", "sleep", "wake"),
    "operations": ("scale", "evict", "move", "limits", "drain", "undrain"),
    "timeline": ("timeline",),
    "trace": ("trace",),
    "queue": ("queue",),
    "pins": ("pin", "unpin"),
    "tiers": ("tiers",),
    "estimate": ("estimate",),
    "plan": ("plan",),
    "capacity": ("capacity",),
    "recommend": ("recommend",),
    "simulate": ("simulate",),
    "replay": ("replay",),
    "journal": ("events", "explain", "logs"),
    "node": ("gpus", "devices", "doctor", "top", "version", "completion"),
    "alerts": ("alerts",),
    "audit": ("audit",),
    "configuration": ("config", "reload", "log-level"),
    "cluster": ("cluster",),
    "keys": ("keys",),
    "usage": ("usage",),
    "warmups": ("warmups",),
}
"""In the order of `heliosctl --help`."""
CHANGES = frozenset(
    {
        *("pull", "import", "alias", "rm", "rollback", "cache share", "gc", "load", "stop", "sleep", "wake", "scale"),
        *("evict", "move", "limits", "drain", "undrain", "pin", "unpin", "tiers", "doctor", "reload", "log-level"),
        *("keys add", "keys set", "keys rm", "warmups import", "warmups rm"),
    }
)
"""Those that may change something: they have `--dry-run`, `--reason` and `--idempotency-key`."""
_WITH_VALUE = ("--socket", "--url", "--key")


def modules_for(words: Sequence[str]) -> tuple[str, ...]:
    """The module that understands a command line; all of them where none is named that is known, as for `--help`."""
    rest = iter(words)
    for word in rest:
        if word in _WITH_VALUE:
            next(rest, None)
        elif not word.startswith("-"):
            return tuple(module for module, commands in MODULES.items() if word in commands) or tuple(MODULES)
        elif word.partition("=")[0] not in _WITH_VALUE:
            break
    return tuple(MODULES)
