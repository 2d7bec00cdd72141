"""What is typed after `:`. Pure: text in, a command or what is wrong with it out."""

import difflib
from dataclasses import dataclass

from tui.deeds import VERBS, Verb

SCREENS = ("top", "devices", "replicas", "models", "queue", "events", "keys", "cluster", "capacity")
"""In the order of the keys 1 to 9."""
_SHORT = {"dev": "devices", "gpus": "devices", "ps": "replicas", "ls": "models", "tiers": "models", "nodes": "cluster"}
_LEAVE = ("q", "quit", "exit")
_HELP = ("help", "?")


@dataclass(frozen=True, slots=True)
class Go:
    screen: str


@dataclass(frozen=True, slots=True)
class Do:
    verb: Verb
    subject: str


@dataclass(frozen=True, slots=True)
class SortBy:
    column: str


@dataclass(frozen=True, slots=True)
class Leave:
    pass


@dataclass(frozen=True, slots=True)
class Help:
    pass


Command = Go | Do | SortBy | Leave | Help


def parse(text: str) -> Command:
    """Raises ValueError that says what can be typed instead."""
    word, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if word in _LEAVE:
        return Leave()
    if word in _HELP:
        return Help()
    if word in VERBS:
        if not rest:
            raise ValueError(
                f"cannot {word}: say what, such as `:{word} {'gpu0' if word in ('drain', 'undrain') else 'org/name'}`"
            )
        return Do(word, rest)
    if word == "sort":
        return SortBy(rest)
    named = [screen for screen in SCREENS if word and screen.startswith(word)]
    if word in _SHORT:
        return Go(_SHORT[word])
    if len(named) == 1 or word in named:
        return Go(word if word in named else named[0])
    near = difflib.get_close_matches(word, (*SCREENS, *VERBS, "sort", "quit"), 1)
    hint = f"; did you mean {near[0]}?" if near else f": try {', '.join(SCREENS)}, {', '.join(VERBS)}, sort or q"
    raise ValueError(f"cannot do {text!r}{hint}")


def completions(text: str) -> list[str]:
    """Whole commands that begin like this."""
    return [each for each in (*SCREENS, *VERBS, "sort", "quit", "help") if text and each.startswith(text)]
