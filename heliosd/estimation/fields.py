"""Reads a configuration's fields under every name in use, with the family's own defaults behind them.

A published `config.json` leaves out what equals its class's default, and families name the same thing differently.
`class_defaults.json` holds the defaults of every configuration class (written by `tests/estimation/class_defaults.py`).
"""

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from heliosd.errors import BadRequest

LARGEST = 2**40
"""No count or size in a real configuration comes near it."""
TEXT_PARTS = ("text_config", "llm_config", "language_config", "language_model", "thinker_config", "decoder")
"""Where models with several modalities keep the configuration of their language part."""


@functools.cache
def class_defaults() -> Mapping[str, Mapping[str, Any]]:
    """Defaults by `model_type`: whole numbers, switches, names and short lists."""
    text = resources.files("heliosd.estimation").joinpath("class_defaults.json").read_text(encoding="utf-8")
    found: dict[str, Mapping[str, Any]] = json.loads(text)
    return found


class Fields:
    """One configuration, or a part of it. What is explicit wins under any name; then the class's default."""

    __slots__ = ("_defaults", "_given", "_language", "model_type")

    def __init__(self, config: Mapping[str, Any], model_type: str | None = None) -> None:
        given = config.get("model_type")
        self.model_type: str = given if isinstance(given, str) else (model_type or "")
        self._given = config
        self._defaults = class_defaults().get(self.model_type, {})
        self._language: Fields | None = None

    def get(self, *names: str) -> Any:
        """The first value that is there and not null; None when there is none."""
        for source in (self._given, self._defaults):
            for name in names:
                if name in source:
                    value = source[name]
                    if value is not None:
                        return value
        return None

    def given(self, *names: str) -> bool:
        """Whether the configuration itself says it, were it null."""
        return any(name in self._given for name in names)

    def changed(self, **values: Any) -> "Fields":
        """The same configuration with these values explicit."""
        return Fields({**self._given, **values}, self.model_type)

    def explicit(self, *names: str) -> Any:
        """The first value that the configuration itself says, without its class; None where it is silent or null."""
        return next((self._given[name] for name in names if self._given.get(name) is not None), None)

    def null(self, *names: str) -> bool:
        """Whether the configuration itself says null under one of the names and a value under none."""
        return self.given(*names) and all(self._given.get(name) is None for name in names)

    def whole(self, *names: str, default: int | None = None) -> int:
        """A count or size, zero allowed. Raises BadRequest when it is absurd or, without a default, missing."""
        value = self.get(*names)
        if type(value) is int and 0 <= value < LARGEST:
            return value
        if value is None:
            if default is None:
                raise BadRequest(
                    f"cannot read the configuration: it does not say {names[0]}", code="bad_config", param=names[0]
                )
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST:
            raise BadRequest(
                f"cannot read the configuration: {names[0]} is {str(value)[:40]!r}, not a sensible whole number",
                code="bad_config",
                param=names[0],
            )
        return value

    def optional(self, *names: str) -> int | None:
        """Like `whole`, None when it is not there."""
        return None if self.get(*names) is None else self.whole(*names)

    def flag(self, *names: str, default: bool = False) -> bool:
        value = self.get(*names)
        return default if value is None else bool(value)

    def text(self, *names: str, default: str = "") -> str:
        value = self.get(*names)
        return value if isinstance(value, str) else default

    def items(self, *names: str) -> list[Any]:
        """A list; empty when there is none or it is something else."""
        value = self.get(*names)
        return list(value) if isinstance(value, list | tuple) else []

    def part(self, *names: str, model_type: str | None = None) -> "Fields | None":
        """A nested configuration; where the given one is silent on it, the class's default one."""
        explicit = next((self._given[name] for name in names if isinstance(self._given.get(name), Mapping)), None)
        default = next((self._defaults[name] for name in names if isinstance(self._defaults.get(name), Mapping)), None)
        if explicit is None and default is None:
            return None
        inherited = default.get("model_type") if default else None
        return Fields(explicit if explicit is not None else default or {}, inherited or model_type)

    def language(self) -> "Fields":
        """The language part, as deep as it is nested; itself when nothing is nested.

        A configuration that is nested by its class but lists the language part's sizes at its top level (older and
        hand-written ones do) is read there.
        """
        if self._language is None:
            self._language = self._innermost()
        return self._language

    def _innermost(self) -> "Fields":
        here = self
        for _ in range(4):
            inner = next((name for name in TEXT_PARTS if isinstance(here._given.get(name), Mapping)), None)
            if inner is None:
                break
            found = here.part(inner)
            if found is None:
                break
            here = found
        else:
            return here
        if here is self and not self._given_sizes():
            return self.part(*TEXT_PARTS) or self
        if here is self and isinstance(self._defaults.get("text_config"), Mapping):
            # Sizes at the top level of a class that nests them: read here, with the nested class's defaults.
            inner_type = self._defaults["text_config"].get("model_type")
            return _retyped(self, inner_type)
        return here

    def _given_sizes(self) -> bool:
        return any(name in self._given for name in ("hidden_size", "num_hidden_layers", "n_layer", "d_model"))


def _retyped(fields: Fields, model_type: Any) -> Fields:
    if not isinstance(model_type, str):
        return fields
    return Fields({**fields._given, "model_type": model_type}, model_type)
