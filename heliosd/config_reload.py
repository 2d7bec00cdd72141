"""What changes while the daemon runs when its configuration is read again (SIGHUP), and what waits for a restart."""

from heliosd.config import Settings
from heliosd.config_keys import Key, is_reloadable, keys_of, value_of, write_key


def reload_diff(old: Settings, new: Settings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The dotted keys that differ: first those that take effect at once, then those that need a restart."""
    changed = [key for key in keys_of(new) if key[0] != "models" and value_of(old, key) != value_of(new, key)]
    changed += [
        ("models", ref)
        for ref in sorted(old.models.keys() | new.models.keys())
        if old.models.get(ref) != new.models.get(ref)
    ]
    return (
        tuple(write_key(key) for key in changed if _at_once(key)),
        tuple(write_key(key) for key in changed if not _at_once(key)),
    )


def with_reloadable(old: Settings, new: Settings) -> Settings:
    """The settings to go on with: what can be reloaded from `new`, all else as the daemon was started."""
    sections: dict[str, dict[str, object]] = {}
    for key in keys_of(new):
        if key[0] != "models" and is_reloadable(key):
            sections.setdefault(key[0], {})[key[1]] = value_of(new, key)
    updated = {name: getattr(old, name).model_copy(update=values) for name, values in sections.items()}
    return old.model_copy(update={**updated, "models": new.models})


def _at_once(key: Key) -> bool:
    return key[0] == "models" or is_reloadable(key)
