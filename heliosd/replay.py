"""`python -m heliosd.replay`, which `heliosctl replay` runs: a recording through the scheduler, to compare.

The scheduler of this version gets the recorded events, and every command it answers must be the recorded one, to the
last byte.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heliosd import __version__
from heliosd.core.codec import Codec, Plain
from heliosd.core.messages import Command, Demand, Event
from heliosd.core.scheduler import Scheduler
from heliosd.errors import BadRequest, HeliosError
from heliosd.state.recording import segment_codec, segments


@dataclass(frozen=True, slots=True)
class Difference:
    """The first event of a segment that was answered otherwise."""

    line: int
    version: str
    """Of Helios, which recorded it."""
    event: Plain
    recorded: Plain
    """The commands; None: the scheduler failed."""
    replayed: Plain
    """The commands, or what the scheduler failed with."""


@dataclass
class Outcome:
    """What a recording gave."""

    segments: int = 0
    events: int = 0
    """Those answered equally."""
    commands: int = 0
    not_replayed: int = 0
    """Events behind a difference: there is nothing to compare them with."""
    torn: int = 0
    """Segments whose last line is incomplete."""
    differences: list[Difference] = field(default_factory=list)


def replay(lines: Iterable[str]) -> Outcome:
    """Replay all segments, each to its first difference. Raises BadRequest, with the line, for what is no recording."""
    outcome = Outcome()
    segment: _Segment | None = None
    for number, line, last in _numbered(lines):
        try:
            said = json.loads(line)
        except ValueError as error:
            if last and segment is not None:
                outcome.torn += 1
                continue
            raise BadRequest(f"cannot read line {number} of the recording: {error}") from error
        try:
            if "helios" in said:
                segment = _Segment(said)
                outcome.segments += 1
            elif segment is None:
                raise ValueError("a recording begins with the scheduler's state, and this does not")
            elif "shared" in said:
                segment.codec.learn(Demand, said["shared"])
            elif segment.differs:
                outcome.not_replayed += 1
            else:
                _compare(segment, said, number, outcome)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadRequest(f"cannot read line {number} of the recording: {error}") from error
    if segment is None:
        raise BadRequest("cannot replay: the recording is empty")
    return outcome


class _Segment:
    """The scheduler as it was when the segment began, and what the text calls things."""

    def __init__(self, head: dict[str, Any]) -> None:
        self.version = str(head["helios"])
        self.codec = segment_codec()
        for shared in head["shared"]:
            self.codec.learn(Demand, shared)
        self.scheduler: Scheduler = self.codec.decode(Scheduler, head["state"])
        self.differs = False


def _compare(segment: _Segment, said: dict[str, Any], number: int, outcome: Outcome) -> None:
    event = segment.codec.decode(Event, said["event"])
    recorded = None if said["commands"] is None else [segment.codec.decode(Command, each) for each in said["commands"]]
    whole = Codec()  # nothing by number: the two sides need not share what is equal
    before = None if recorded is None else [whole.encode(Command, each) for each in recorded]
    after = _answered(segment.scheduler, event, whole)
    # Where the scheduler failed then, it has to fail now; with which words, nobody noted.
    if before == after or (before is None and isinstance(after, str)):
        outcome.events += 1
        outcome.commands += len(before or ())
        return
    segment.differs = True
    outcome.differences.append(Difference(number, segment.version, whole.encode(Event, event), before, after))


def _answered(scheduler: Scheduler, event: Event, whole: Codec) -> Plain:
    try:
        return [whole.encode(Command, each) for each in scheduler.handle(event)]
    except Exception as error:  # a failure is an answer, too: it is what is compared
        return f"{type(error).__name__}: {error}"


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str, bool]]:
    """Each line with its number, and whether it is the last of its segment."""
    held: tuple[int, str] | None = None
    for number, line in enumerate(lines, start=1):
        if held is not None:
            yield *held, line.startswith('{"helios"')
        held = number, line
    if held is not None:
        yield *held, True


def read(path: Path) -> Iterator[str]:
    """The lines of a file, or of all segments in a folder. Raises BadRequest."""
    try:
        files = segments(path) if path.is_dir() else [path]
        if not files:
            raise BadRequest(f"cannot replay {path}: the folder holds no recording")
        for file in files:
            with file.open(encoding="utf-8", errors="replace") as text:
                yield from text
    except OSError as error:
        raise BadRequest(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="heliosctl replay", description=__doc__)
    parser.add_argument("file", metavar="FILE", type=Path, help="a recording, or the folder the daemon keeps it in")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    given = parser.parse_args(argv)
    try:
        outcome = replay(read(given.file))
    except HeliosError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    sys.stdout.write((json.dumps(figures(outcome), indent=1) if given.output == "json" else told(outcome)) + "\n")
    return 1 if outcome.differences else 0


def figures(outcome: Outcome) -> dict[str, Any]:
    first = outcome.differences[0] if outcome.differences else None
    return {
        "segments": outcome.segments,
        "equal_events": outcome.events,
        "equal_commands": outcome.commands,
        "not_replayed": outcome.not_replayed,
        "torn": outcome.torn,
        "differing_segments": len(outcome.differences),
        "first_difference": None
        if first is None
        else {
            "line": first.line,
            "recorded_by": first.version,
            "event": first.event,
            "recorded": first.recorded,
            "replayed": first.replayed,
        },
    }


def told(outcome: Outcome) -> str:
    """For people."""
    counts = f"{outcome.events} events gave the same {outcome.commands} commands, in {outcome.segments} segments"
    lines = [counts if outcome.events else f"no event gave the same commands, in {outcome.segments} segments"]
    if outcome.torn:
        lines.append(f"{outcome.torn} segments end in the middle of a line, as a killed daemon leaves them")
    if outcome.differences:
        first = outcome.differences[0]
        other = "" if first.version == __version__ else f", recorded by Helios {first.version} and not {__version__}"
        lines += [
            f"{len(outcome.differences)} segments differ, {outcome.not_replayed} events behind that were not replayed",
            f"the first difference is at line {first.line}{other}:",
            f"  event     {_text(first.event)}",
            *_commands("recorded", first.recorded),
            *_commands("replayed", first.replayed),
        ]
    return "\n".join(lines)


def _commands(title: str, commands: Plain) -> list[str]:
    if commands is None or isinstance(commands, str):
        return [f"  {title}  the scheduler failed{f': {commands}' if commands else ''}"]
    return [f"  {title}  {_text(each)}" for each in commands] or [f"  {title}  nothing"]


def _text(value: Plain) -> str:
    """Name and fields; what a demand rests on is left out."""
    shown = {key: each for key, each in value.items() if key != "is"}
    if isinstance(shown.get("demand"), dict):
        shown["demand"] = {key: each for key, each in shown["demand"].items() if key not in ("basis", "arguments")}
    return f"{value['is']} {json.dumps(shown, ensure_ascii=False)}"


if __name__ == "__main__":
    sys.exit(main())
