"""Lists of modules that a checkpoint treats differently: patterns in three dialects, found by name without a search.

A pattern is a module's name (`lm_head`, `model.layers.3.mlp.gate`), a name with stars, or a regular expression after
`re:`. Checkpoints list them layer by layer, thousands of them; here they are folded into one rule for all layers and
looked up by the parts of a name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from heliosd.estimation.quantization_schemes import Scheme

Everywhere = frozenset({-1})
_LAYER = re.compile(r"(layers|blocks|h)\.(\d+)(?=\.|$|\*)")
_PREFIXES = ("language_model.model.", "model.language_model.", "language_model.", "model.", "transformer.")
NEVER = ("norm", "bias")
"""No quantizer touches these, whatever a list says; most lists are half of them."""
LONGEST_EXPRESSION = 512
MOST_REPETITIONS = 6
_REPETITION = re.compile(r"(?<!\\)[*+{]")
_WILD = re.compile(r"[*?\[]")
_NESTED = re.compile(r"(?<!\\)\)[*+{]")


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern of module names and the layers for which it was written."""

    pattern: str
    layers: frozenset[int]
    """`Everywhere`, or indices."""
    scheme: Scheme | None
    """None: kept as it is."""


class RuleIndex:
    """Rules by what they look for."""

    __slots__ = ("_beginnings", "_begun", "_expressions", "_globs", "_known", "_paths", "_rules", "_segments")

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._segments: dict[str, list[int]] = {}
        self._paths: dict[str, list[int]] = {}
        self._globs: list[tuple[int, str]] = []
        self._expressions: list[tuple[int, re.Pattern[str]]] = []
        self._known: dict[str, list[Rule]] = {}
        self._beginnings: list[tuple[int, str]] = []
        """Of patterns with a star at their end alone: most of those with stars."""
        for at, rule in enumerate(rules):
            pattern = rule.pattern
            if pattern.startswith("re:"):
                expression = _expression(pattern[3:])
                if expression is not None:
                    self._expressions.append((at, expression))
            elif "*" in pattern:
                for each in {pattern, bare(pattern)}:
                    if _WILD.search(each, 0, len(each) - 1) is None and each.endswith("*"):
                        self._beginnings.append((at, each[:-1]))
                    else:
                        self._globs.append((at, each))
            elif "." not in pattern:
                self._segments.setdefault(pattern, []).append(at)
            else:
                self._paths.setdefault(bare(pattern), []).append(at)
        self._begun = tuple(beginning for _, beginning in self._beginnings)

    def naming(self, module: str, other: str) -> list[Rule]:
        """The rules that mean `module`, under either of its names, which have `{}` in the place of a layer's index; in
        their own order."""
        if not self._rules:
            return []
        known = self._known.get(module)
        if known is None:
            places = self._places(module) if module == other else self._places(module) | self._places(other)
            known = self._known[module] = [self._rules[at] for at in sorted(places)]
        return known

    def _places(self, module: str) -> set[int]:
        found: set[int] = set()
        name = bare(module)
        for segment in module.split(".") if self._segments else ():
            found.update(self._segments.get(segment, ()))
        if self._paths:
            found.update(self._paths.get(name, ()))
            dot = name.find(".")
            while dot >= 0:
                for part in (name[:dot], name[dot + 1 :]):
                    if part in self._paths:
                        found.update(self._paths[part])
                dot = name.find(".", dot + 1)
        if module.startswith(self._begun) or name.startswith(self._begun):
            for at, beginning in self._beginnings:
                if module.startswith(beginning) or name.startswith(beginning):
                    found.add(at)
        for at, wanted in self._globs:
            if _globbed(module, wanted) or (name is not module and _globbed(name, wanted)):
                found.add(at)
        if self._expressions:
            numbered = module.replace("{}", "0")
            found.update(at for at, expression in self._expressions if expression.match(numbered))
        return found


def _expression(text: str) -> re.Pattern[str] | None:
    """Compiled; None for what is no expression, and for what could search for ever: repetitions within repetitions."""
    if len(text) > LONGEST_EXPRESSION or _NESTED.search(text) or len(_REPETITION.findall(text)) > MOST_REPETITIONS:
        return None
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return None


def _globbed(name: str, pattern: str) -> bool:
    """Whether `name` matches a pattern of stars; other wildcards are rare and left to the library."""
    first, _, rest = pattern.partition("*")
    if "?" in pattern or "[" in pattern:
        return fnmatchcase(name, pattern)
    if not name.startswith(first):
        return False
    if not rest:
        return True
    *middle, last = rest.split("*")
    if not name.endswith(last) or len(name) < len(first) + len(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def bare(name: str) -> str:
    """Without the wrappers in which checkpoints keep a decoder."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def rules(patterns: Iterable[object], scheme: Scheme | None) -> tuple[Rule, ...]:
    """Patterns written layer by layer, folded into one rule each."""
    folded: dict[tuple[str, str, str], list[str]] = {}
    for pattern in patterns:
        if type(pattern) is not str or not pattern or pattern.endswith(NEVER):
            continue
        # Lists have thousands of names, nearly all of this form; strings are cheaper to take apart than to search.
        before, _, after = pattern.partition("layers.")
        index, dot, rest = after.partition(".")
        if index.isdecimal() and before[:3] != "re:":
            key = (before + "layers.", dot, rest)
        else:
            key, index = _folded(pattern)
        known = folded.get(key)
        if known is None:
            folded[key] = [index]
        else:
            known.append(index)
    return tuple(
        Rule(before + "{}" + dot + rest if indices[0] else before, _layers(indices), scheme)
        for (before, dot, rest), indices in folded.items()
    )


def _layers(indices: list[str]) -> frozenset[int]:
    if not indices[0]:
        return Everywhere
    longest = max(indices, key=len)
    return frozenset(map(int, indices if len(longest) < 10 else [index[:9] for index in indices]))


def _folded(pattern: str) -> tuple[tuple[str, str, str], str]:
    """((what is before a layer's index, nothing, what is after it), the index); no index where there is no layer."""
    found = None if pattern.startswith("re:") else _LAYER.search(pattern)
    if found is None:
        return (pattern, "", ""), ""
    return (pattern[: found.start(2)], "", pattern[found.end(2) :]), found[2]
