"""Reads the command line and shows the screen; the exit codes are heliosctl's."""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence

import uvloop

from heliosctl.exits import Exit, Failure
from heliosctl.place import Place, find_place
from tui.commands import SCREENS

_EXAMPLES = """\
examples:
  python -m tui
  python -m tui --screen models --read-only
  python -m tui --once --screen devices --size 120x40
  python -m tui --url http://host:8484 --key KEY
"""
_LEAST, _MOST = (40, 10), (1000, 5000)


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    args = _parser().parse_args(argv)
    try:
        place = find_place(args.socket, args.url, args.key, os.environ)
        return int(uvloop.run(_once(place, args) if args.once else _watch(place, args)))
    except Failure as failure:
        print(f"helios: {failure.message}", file=sys.stderr)  # noqa: T201  # a command's talk, not a log
        return int(failure.exit_code)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tui",
        description="Watch devices, replicas, models, queue and events live, and act on them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--socket", metavar="PATH", help="the daemon's Unix socket")
    parser.add_argument("--url", metavar="URL", help="a daemon elsewhere, such as http://host:8484")
    parser.add_argument("--key", metavar="KEY", help="the API key for --url")
    parser.add_argument("--screen", choices=SCREENS, default="top", help="the screen to begin with (default top)")
    parser.add_argument("--read-only", action="store_true", help="only watch: nothing can be changed")
    parser.add_argument("--once", action="store_true", help="print one frame as text and leave")
    parser.add_argument("--size", metavar="WxH", type=_size, help="of that frame; default: the terminal's, or 80x24")
    return parser


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(low <= own <= high for low, own, high in zip(_LEAST, size, _MOST, strict=True)):
        raise argparse.ArgumentTypeError(f"cannot draw {text!r}: write columns and lines from 40x10 on, such as 80x24")
    return size


async def _once(place: Place, args: argparse.Namespace) -> Exit:
    from tui.feed import Feed
    from tui.frame import print_frame, take_frame

    size: tuple[int, int] = args.size or shutil.get_terminal_size((80, 24))
    print_frame(await take_frame(Feed(place), args.screen, size, read_only=args.read_only))
    return Exit.OK


async def _watch(place: Place, args: argparse.Namespace) -> Exit:
    from tui.app import watch
    from tui.feed import Feed

    if args.size is not None:
        raise Failure("cannot use --size without --once: a live screen has the terminal's size", Exit.USAGE)
    return await watch(Feed(place), screen=args.screen, read_only=args.read_only)


if __name__ == "__main__":
    sys.exit(main())
