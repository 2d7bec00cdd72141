"""How the configuration reads one value: sizes, spans, shares, paths. Knows no keys and no files."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator

from heliosd.core.units import GiB, KiB, MiB, parse_bytes, parse_seconds

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Share:
    """A part of something whose size the machine knows, above 0 and at most 1."""

    ratio: float

    def __str__(self) -> str:
        return f"{self.ratio * 100:g}%"


def write_bytes(n_bytes: int) -> int | str:
    """Write a size exactly, in the largest unit that divides it."""
    for unit, name in ((GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if n_bytes and n_bytes % unit == 0:
            return f"{n_bytes // unit}{name}"
    return n_bytes


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a size, such as 8GiB, 512MiB or a number of bytes")
    n_bytes = parse_bytes(value) if isinstance(value, str) else value
    if n_bytes < 0:
        raise ValueError("must not be negative")
    return n_bytes


def _size_above_zero(value: Any) -> int:
    n_bytes = _size(value)
    if not n_bytes:
        raise ValueError("must be larger than zero")
    return n_bytes


def _size_or_auto(value: Any) -> int | None:
    if value is None or value == AUTO:
        return None
    n_bytes = _size(value)
    if not n_bytes:
        raise ValueError('must be larger than zero, or "auto"')
    return n_bytes


def _count_or_auto(value: Any) -> int | None:
    if value is None or value == AUTO:
        return None
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError('must be a whole number of at least 1, or "auto"')
    return value


def _switch_or_auto(value: Any) -> bool | None:
    if value is None or value == AUTO:
        return None
    named = {"true": True, "false": False}
    found = named.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError('must be true, false or "auto"')
    return found


def _size_or_share(value: Any) -> int | Share | None:
    if value is None or value == AUTO or isinstance(value, Share):
        return value if isinstance(value, Share) else None
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            ratio = float(value.strip()[:-1]) / 100
        except ValueError:
            ratio = math.nan
        if not 0 < ratio <= 1:
            raise ValueError("must be a share above 0% and at most 100%")
        return Share(ratio)
    try:
        return _size(value)
    except ValueError as error:
        raise ValueError('must be a size such as 8GiB, a share such as 50%, or "auto"') from error


def _span(value: Any) -> float:
    if isinstance(value, str):
        return parse_seconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a time span, such as 30, 5m or 250ms")
    return float(value)


def _finite(value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError("must be a time span of zero or more")
    return value


def _positive(value: float) -> float:
    if not math.isfinite(value) or value <= 0:
        raise ValueError("must be a time span above zero")
    return value


def _span_or_forever(value: Any) -> float:
    span_s = math.inf if value == "forever" else _span(value)
    if math.isnan(span_s) or span_s < 0:
        raise ValueError('must be a time span of zero or more, or "forever"')
    return span_s


def _span_or_auto(value: Any) -> float | None:
    return None if value is None or value == AUTO else _span_or_forever(value)


def _write_span(span_s: float | None) -> float | str:
    return AUTO if span_s is None else "forever" if math.isinf(span_s) else span_s


def _path(value: Any) -> Path:
    """Only absolute paths: a daemon's working directory means nothing to the operator."""
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("must be a path")
    try:
        path = Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"cannot find the home directory that {value} begins with") from error
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path (or begin with ~/), not {value}")
    return path


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and value.lstrip().startswith("["):  # as other programs write lists in variables
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError('must be a list such as a,b or ["a", "b"]') from None
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Bytes = Annotated[int, PlainValidator(_size), PlainSerializer(write_bytes)]
BytesAboveZero = Annotated[int, PlainValidator(_size_above_zero), PlainSerializer(write_bytes)]
BytesOrAuto = Annotated[
    int | None, PlainValidator(_size_or_auto), PlainSerializer(lambda n: AUTO if n is None else write_bytes(n))
]
CountOrAuto = Annotated[int | None, PlainValidator(_count_or_auto), PlainSerializer(lambda n: AUTO if n is None else n)]
BytesOrShare = Annotated[
    int | Share | None,
    PlainValidator(_size_or_share),
    PlainSerializer(lambda v: AUTO if v is None else str(v) if isinstance(v, Share) else write_bytes(v)),
]
Seconds = Annotated[float, PlainValidator(_span), AfterValidator(_finite)]
SecondsAboveZero = Annotated[float, PlainValidator(_span), AfterValidator(_positive)]
SecondsOrForever = Annotated[float, PlainValidator(_span_or_forever), PlainSerializer(_write_span)]
SwitchOrAuto = Annotated[
    bool | None, PlainValidator(_switch_or_auto), PlainSerializer(lambda on: AUTO if on is None else on)
]
SecondsOrAuto = Annotated[float | None, PlainValidator(_span_or_auto), PlainSerializer(_write_span)]
AbsolutePath = Annotated[Path, PlainValidator(_path), PlainSerializer(str)]
Words = Annotated[tuple[str, ...], PlainValidator(_words), PlainSerializer(list)]
LowerCase = BeforeValidator(_lower)
Text = Annotated[str, Field(min_length=1)]
