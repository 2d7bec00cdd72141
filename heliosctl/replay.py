"""The command replay: what the scheduler was told, given to it again, and compared with what it answered then."""

import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from heliosctl.client import connect
from heliosctl.exits import Exit, Failure

if TYPE_CHECKING:
    from heliosctl.parser import Commands


def add(commands: "Commands") -> None:
    command = commands.add(
        "replay",
        replay,
        "give the scheduler what it was told, and compare its commands with those it gave",
        [
            "heliosctl replay",
            "heliosctl replay --save monday.jsonl",
            "heliosctl replay monday.jsonl",
            "heliosctl replay /var/lib/helios/recording",
        ],
        about="Without FILE the running daemon is asked for its recording; with FILE none is. "
        "Exit code 1: some command differs.",
    )
    command.add_argument("file", metavar="FILE", nargs="?", help="a recording, or the folder a daemon keeps it in")
    command.add_argument("--save", metavar="FILE", help="only write the daemon's recording to this file")
    command.add_argument("--json", action="store_true", help="the outcome as JSON")


def replay(args: Namespace) -> Exit:
    if args.save is not None:
        if args.file is not None or args.json:
            raise Failure("cannot save what is replayed: --save goes alone, and replays nothing", Exit.USAGE)
        _fetch(args, Path(args.save))
        return Exit.OK
    if args.file is not None:
        return _run(args.file, args.json)
    with tempfile.TemporaryDirectory(prefix="heliosctl-") as folder:
        file = Path(folder) / "recording.jsonl"
        _fetch(args, file)
        return _run(str(file), args.json)


def _fetch(args: Namespace, file: Path) -> None:
    lines = connect(args).lines("/helios/v1/recording")
    try:
        with file.open("w", encoding="utf-8") as text:
            for line in lines:
                text.write(line + "\n")
    except OSError as error:
        raise Failure(f"cannot write {file}: {(error.strerror or str(error)).lower()}") from error


def _run(file: str, as_json: bool) -> Exit:
    words = [sys.executable, "-m", "heliosd.replay", *(["-o", "json"] if as_json else []), "--", file]
    return {0: Exit.OK, 2: Exit.USAGE}.get(subprocess.run(words, check=False).returncode, Exit.FAILED)
