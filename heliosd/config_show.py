"""The whole configuration as TOML that explains itself: every value, what it means, where it came from."""

import json
import math
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr

from heliosd.config import ModelSection, Settings
from heliosd.config_keys import field_of, is_reloadable, is_secret, keys_of, value_of, write_key
from heliosd.config_sources import Loaded


def show(loaded: Loaded) -> str:
    """Valid TOML: read again, it gives the same settings, apart from secrets, which are left out."""
    return "\n".join(_lines(loaded)) + "\n"


def secrets_of(settings: Settings) -> frozenset[str]:
    """The values that `show` leaves out, to keep them out of other things."""
    found = (value_of(settings, key) for key in keys_of(settings) if is_secret(key))
    return frozenset(value.get_secret_value() for value in found if isinstance(value, SecretStr)) - {""}


def _lines(loaded: Loaded) -> Iterator[str]:
    settings = loaded.settings
    plain = settings.model_dump()
    yield "# The configuration of heliosd. flag > HELIOS_SECTION__KEY > conf.d/*.toml > helios.toml > default."
    yield f"# Files read: {', '.join(map(str, loaded.files)) or f'none (looked in {loaded.places.config_dir})'}"
    yield "# [reload] marks what SIGHUP (systemctl reload heliosd) brings into effect; all else needs a restart."
    table: tuple[str, ...] = ()
    for key in keys_of(settings):
        if key[:-1] != table:
            table = key[:-1]
            yield ""
            yield f"# {_about(table)}"
            yield f"[{write_key(table)}]"
        mark = " [reload]" if is_reloadable(key) else ""
        yield ""
        yield from textwrap.wrap(field_of(key).description or "", 100, initial_indent="# ", subsequent_indent="# ")
        yield f"# from: {loaded.origins[write_key(key)]}{mark}"
        value: Any = plain
        for part in key:
            value = value[part]
        if value_of(settings, key) is None and value is None:
            yield f"# {key[-1]} is not set"
        elif is_secret(key):
            yield f"# {key[-1]} is set and not shown"
        else:
            yield f"{key[-1]} = {write_value(value)}"
    if not settings.models:
        yield "\n# What differs for one model; remove the first # of each line to use it. [reload]"
        yield '# [models."org/name"]'
        defaults = ModelSection().model_dump()
        for name, field in ModelSection.model_fields.items():
            yield f"# {name} = {write_value(defaults[name])}  # {field.description}"


def _about(table: tuple[str, ...]) -> str:
    if table[0] == "models":
        return f"What differs for {table[1]}."
    kind = Settings.model_fields[table[0]].annotation
    return (kind.__doc__ or "").strip()


def write_value(value: Any) -> str:
    """A value in TOML's own notation."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            if not math.isfinite(value):
                return str(value)
            return str(int(value)) if value.is_integer() else repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(write_value, value))}]"
        case dict():
            return f"{{{', '.join(f'{write_key((name,))} = {write_value(each)}' for name, each in value.items())}}}"
        case _:
            return str(value)
