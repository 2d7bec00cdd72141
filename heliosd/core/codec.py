"""Frozen values to plain ones (what JSON can say) and back, by their type hints alone.

Dataclasses become objects, tuples, lists and sets become lists, enums their values, mappings objects or lists of pairs,
numbers that JSON has no word for (`inf`) strings. Where several classes are possible, `is` names the one. A dataclass
that is not frozen is written where it is met first and referred to by number from elsewhere, so that it comes back as
one thing.
"""

import math
import types
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from itertools import count
from typing import Any, Generic, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

Plain = Any
"""None, bool, int, float, str, list and dict of them."""
Turn = Callable[[Any], Any]

_SCALARS = (str, int, bool, type(None))
_T = TypeVar("_T")


class _Count(Generic[_T]):
    """Stands for `itertools.count`, which a type hint may subscribe, but not when it is evaluated."""


class Codec:
    """Values of the classes in `shared` are told once, in `fresh`, and referred to by number afterwards.

    One for each text: what it wrote, a second one reads in the same order.
    """

    def __init__(self, shared: tuple[type, ...] = ()) -> None:
        self._shared = shared
        self._encoders: dict[Any, Turn] = {}
        self._decoders: dict[Any, Turn] = {}
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []
        """Kept alive, so that no other value gets their identity."""
        self._met: dict[int, int] = {}
        self._made: list[Any] = []
        """What is not frozen, within one value."""
        self.fresh: list[Plain] = []
        """Shared values met since the caller emptied it, each to be given to `learn` before what refers to it."""

    def encode(self, kind: Any, value: Any) -> Plain:
        """`value`, of the type `kind`. Raises TypeError for a type hint that it has no rule for."""
        self._met.clear()
        return self._encoder(kind)(value)

    def decode(self, kind: Any, plain: Plain) -> Any:
        """The inverse. Raises ValueError with the class and field that are wrong."""
        self._made.clear()
        return self._decoder(kind)(plain)

    def share(self, value: Any) -> Plain:
        """What stands for a shared value: its number."""
        number = self._numbers.get(id(value))
        if number is None:
            self.fresh.append(self._object(type(value))(value))
            number = self._numbers[id(value)] = len(self._kept)
            self._kept.append(value)
        return number

    def learn(self, kind: type, plain: Plain) -> None:
        """Take in the next shared value."""
        self._kept.append(self._maker(kind)(plain))

    # ---- to plain values -------------------------------------------------------

    def _encoder(self, kind: Any) -> Turn:
        found = self._encoders.get(kind)
        if found is None:
            found = self._encoders[kind] = self._encoder_for(_bare(kind))
        return found

    def _encoder_for(self, kind: Any) -> Turn:
        origin, inner = get_origin(kind), get_args(kind)
        if kind in _SCALARS:
            return _same
        if kind is float:
            return _number
        if isinstance(kind, type) and issubclass(kind, Enum):
            return _value
        if origin is _Count:
            return lambda value: next(copy(value))
        if kind in self._shared:
            return self.share
        if is_dataclass(kind):
            return self._object(kind) if _is_frozen(kind) else self._object_once(kind)
        if origin in (Union, types.UnionType):
            return self._encoder_of_union(inner)
        if origin in (tuple, list):
            return _row(tuple(map(self._encoder, inner))) if _fixed(kind) else _list(self._encoder(inner[0]))
        if origin in (set, frozenset):
            each = self._encoder(inner[0])
            return lambda value: sorted(map(each, value), key=str)
        if _is_mapping(origin):
            first, second = map(self._encoder, inner)
            if _bare(inner[1]) is type(None):
                return _list(first)
            if _is_text(inner[0]):
                return lambda value: {first(key): second(each) for key, each in value.items()}
            return lambda value: [[first(key), second(each)] for key, each in value.items()]
        raise TypeError(f"cannot write a value of the type {kind}: the codec has no rule for it")

    def _object(self, kind: Any) -> Turn:
        hints = _hints(kind)
        plan = [(each.name, self._encoder(hints[each.name])) for each in fields(kind)]
        return lambda value: {name: turn(getattr(value, name)) for name, turn in plan}

    def _object_once(self, kind: Any) -> Turn:
        whole, met = self._object(kind), self._met

        def turn(value: Any) -> Plain:
            number = met.get(id(value))
            if number is None:
                met[id(value)] = len(met)
                return whole(value)
            return number

        return turn

    def _encoder_of_union(self, members: tuple[Any, ...]) -> Turn:
        classes = _classes(members)
        others = [each for each in members if each not in classes and each is not type(None)]
        if len(classes) > 1 and not others:
            encoders = {each: (each.__name__, self._encoder(each)) for each in classes}

            def tagged(value: Any) -> Plain:
                if value is None:
                    return None
                name, turn = encoders[type(value)]
                return {"is": name, **turn(value)}

            return tagged
        if len(classes) + len(others) == 1:
            turn = self._encoder((*classes, *others)[0])
            return lambda value: None if value is None else turn(value)
        if not classes and all(_bare(each) in (*_SCALARS, float) for each in others):
            return _number
        raise TypeError(f"cannot tell which of {members} a plain value is: the codec has no rule for it")

    # ---- and back --------------------------------------------------------------

    def _decoder(self, kind: Any) -> Turn:
        found = self._decoders.get(kind)
        if found is None:
            found = self._decoders[kind] = self._decoder_for(_bare(kind))
        return found

    def _decoder_for(self, kind: Any) -> Turn:
        origin, inner = get_origin(kind), get_args(kind)
        if kind in _SCALARS:
            return _same
        if kind is float:
            return _parsed
        if isinstance(kind, type) and issubclass(kind, Enum):
            return kind
        if origin is _Count:
            return count
        if kind in self._shared:
            made = self._maker(kind)
            return lambda plain: self._kept[plain] if isinstance(plain, int) else made(plain)
        if is_dataclass(kind):
            return self._maker(kind) if _is_frozen(kind) else self._maker_once(kind)
        if origin in (Union, types.UnionType):
            return self._decoder_of_union(inner)
        if origin in (tuple, list) and _fixed(kind):
            turns = tuple(map(self._decoder, inner))
            return lambda plain: tuple(turn(each) for turn, each in zip(turns, plain, strict=True))
        if origin in (tuple, list, set, frozenset):
            each, collect = self._decoder(inner[0]), origin
            return lambda plain: collect(map(each, plain))
        if _is_mapping(origin):
            first, second = map(self._decoder, inner)
            gather = origin if issubclass(origin, dict) else dict
            if _bare(inner[1]) is type(None):
                return lambda plain: gather((first(key), None) for key in plain)
            pairs: Turn = dict.items if _is_text(inner[0]) else _same
            return lambda plain: gather((first(key), second(each)) for key, each in pairs(plain))
        raise TypeError(f"cannot read a value of the type {kind}: the codec has no rule for it")

    def _maker(self, kind: Any) -> Turn:
        hints = _hints(kind)
        plan = {each.name: self._decoder(hints[each.name]) for each in fields(kind)}
        needed = {each.name for each in fields(kind) if each.init and not _has_default(each)}
        later = {each.name for each in fields(kind) if not each.init}

        def make(plain: Plain) -> Any:
            if not isinstance(plain, dict):
                raise ValueError(f"cannot read a {kind.__name__}: {plain!r:.80} is no object")
            given = plain.keys() - {"is"}
            if wrong := sorted((needed - given) | (given - plan.keys())):
                word = "lacks" if wrong[0] in needed else "does not know"
                raise ValueError(f"cannot read a {kind.__name__}: it {word} `{wrong[0]}`")
            # In the order of the fields, as they were written: references count on it.
            values = {name: turn(plain[name]) for name, turn in plan.items() if name in given}
            made = kind(**{name: each for name, each in values.items() if name not in later})
            for name in later & given:
                object.__setattr__(made, name, values[name])
            return made

        return make

    def _maker_once(self, kind: Any) -> Turn:
        make, all_made = self._maker(kind), self._made

        def turn(plain: Plain) -> Any:
            if isinstance(plain, int):
                return all_made[plain]
            number = len(all_made)
            all_made.append(None)
            all_made[number] = made = make(plain)
            return made

        return turn

    def _decoder_of_union(self, members: tuple[Any, ...]) -> Turn:
        classes = _classes(members)
        if len(classes) > 1:
            decoders = {each.__name__: self._decoder(each) for each in classes}

            def tagged(plain: Plain) -> Any:
                if plain is None:
                    return None
                name = plain.get("is") if isinstance(plain, dict) else None
                if name not in decoders:
                    raise ValueError(f"cannot read {name!r}: expected one of {', '.join(decoders)}")
                return decoders[name](plain)

            return tagged
        others = [each for each in members if each is not type(None)]
        if len(others) == 1:
            turn = self._decoder(others[0])
            return lambda plain: None if plain is None else turn(plain)
        return _parsed if float in others else _same


def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, localns={"count": _Count})


def _is_frozen(kind: Any) -> bool:
    return bool(kind.__dataclass_params__.frozen)


def _bare(kind: Any) -> Any:
    while isinstance(kind, NewType):
        kind = kind.__supertype__
    return type(None) if kind is None else kind


def _classes(members: tuple[Any, ...]) -> list[Any]:
    return [each for each in members if is_dataclass(each)]


def _fixed(kind: Any) -> bool:
    """A tuple with a type for each place."""
    return get_origin(kind) is tuple and get_args(kind)[-1] is not Ellipsis


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_text(kind: Any) -> bool:
    bare = _bare(kind)
    return isinstance(bare, type) and issubclass(bare, str)


def _has_default(field: "Field[Any]") -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _row(turns: tuple[Turn, ...]) -> Turn:
    return lambda value: [turn(each) for turn, each in zip(turns, value, strict=True)]


def _list(each: Turn) -> Turn:
    return list if each is _same else lambda value: list(map(each, value))


def _same(value: Any) -> Any:
    return value


def _number(value: Any) -> Plain:
    return value if not isinstance(value, float) or math.isfinite(value) else repr(value)


def _parsed(plain: Plain) -> Any:
    return float(plain) if plain in ("inf", "-inf", "nan") else plain


def _value(value: Enum) -> Plain:
    return value.value
