"""The keys of the configuration: which there are, whether a value suits one, and which one was probably meant."""

import json
import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from functools import cache
from typing import Annotated, Any, get_origin

from pydantic import ConfigDict, Field, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from heliosd.config import ModelSection, Settings, section_type
from heliosd.core.names import parse_ref

Key = tuple[str, ...]
"""(section, key), or ("models", ref, key)."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def write_key(key: Key) -> str:
    """As TOML writes it: `api.port`, `models."org/name".dtype`."""
    return ".".join(part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False) for part in key)


def keys_of(settings: Settings) -> Iterator[Key]:
    """All keys, in the order they are declared, then those of each model that has a table."""
    for section in _sections():
        yield from ((section, name) for name in _fields(section))
    for ref in settings.models:
        yield from (("models", ref, name) for name in ModelSection.model_fields)


def field_of(key: Key) -> FieldInfo:
    return _fields(key[0])[key[-1]]


def value_of(settings: Settings, key: Key) -> Any:
    if key[0] == "models":
        return getattr(settings.models[key[1]], key[2])
    return getattr(getattr(settings, key[0]), key[1])


def is_reloadable(key: Key) -> bool:
    field = Settings.model_fields["models"] if key[0] == "models" else field_of(key)
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("reloadable"))


def is_secret(key: Key) -> bool:
    return SecretStr in (field_of(key).annotation, *getattr(field_of(key).annotation, "__args__", ()))


def find_fault(key: Key, value: Any) -> str | None:
    """What is wrong with a key itself, naming the nearest there is. None when it is one."""
    section, *rest = key
    if section not in Settings.model_fields:
        return f"is not a section; the nearest is {_nearest(key)}"
    if not rest:
        return None if value == {} else f"must be a table, [{section}]"
    if section == "models":
        try:
            parse_ref(rest[0])
        except ValueError as error:
            return str(error)
        if len(rest) == 1:
            return None if value == {} else f'must be a table, [models."{rest[0]}"]'
    if rest[-1] not in _fields(section):
        where = section if section != "models" else f"models.{json.dumps(rest[0])}"
        return f"is not a key of [{where}]; the nearest is {_nearest(key)}"
    return None


def check_value(key: Key, value: Any) -> Any:
    """The value as Settings wants it, from a typed source. Raises ValueError in words for the operator."""
    return _validate(key, value, strict=True)


def read_text(key: Key, text: str) -> Any:
    """The same from plain text, as variables have it: `8484`, `true`, `a,b`, or JSON for a table."""
    value: Any = text
    if get_origin(field_of(key).annotation) is dict:
        try:
            value = json.loads(text)
        except ValueError:
            raise ValueError("must be a JSON object") from None
    return _validate(key, value, strict=False)


def in_words(fault: Mapping[str, Any]) -> str:
    """What pydantic found, for an operator. A secret is never repeated."""
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    words = str(fault["msg"]).replace("Input should be", "must be").replace("String should have", "must have")
    shown = fault.get("input")
    return f"{words}, not {shown!r}" if isinstance(shown, str | int | float | list) else words


def _validate(key: Key, value: Any, *, strict: bool) -> Any:
    try:
        return _adapter(key[0], key[-1]).validate_python(value, strict=strict)
    except ValidationError as error:
        faults = error.errors(include_input=not is_secret(key))
        raise ValueError("; ".join(dict.fromkeys(map(in_words, faults)))) from None


@cache
def _adapter(section: str, name: str) -> TypeAdapter[Any]:
    field = _fields(section)[name]
    kind: Any = Annotated[field.annotation, *field.metadata, Field()]
    return TypeAdapter(kind, config=ConfigDict(strict=True))


def _sections() -> Iterator[str]:
    return (name for name, field in Settings.model_fields.items() if section_type(field))


def _fields(section: str) -> Mapping[str, FieldInfo]:
    kind = section_type(Settings.model_fields[section]) or ModelSection
    return kind.model_fields


def _nearest(key: Key) -> str:
    """The key that was probably meant: alike in name, and rather of the same section."""
    known: list[Key] = [(section, name) for section in _sections() for name in _fields(section)]
    if key[0] == "models":
        known += [(*key[:-1], name) for name in ModelSection.model_fields]
    if len(key) == 1:
        known += [(section,) for section in Settings.model_fields]

    def likeness(candidate: Key) -> float:
        alike = SequenceMatcher(None, key[-1], candidate[-1]).ratio()
        section = SequenceMatcher(None, key[0], candidate[0]).ratio() if len(candidate) > 1 else 1.0
        return alike + 0.3 * section

    return write_key(max(known, key=likeness))
