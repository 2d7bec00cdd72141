"""Reads the command line and shows the screen; the exit codes are heliosctl's."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from heliosctl.exits import Exit, Failure
from heliosctl.place import Place, find_place

_EXAMPLES = """\
examples:
  python -m tui
  python -m tui --once
  python -m tui --url http://host:8484 --key KEY
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    args = _parser().parse_args(argv)
    try:
        place = find_place(args.socket, args.url, args.key, os.environ)
        return int(asyncio.run(_once(place) if args.once else _watch(place)))
    except Failure as failure:
        print(f"helios: {failure.message}", file=sys.stderr)  # noqa: T201  # a command's talk, not a log
        return int(failure.exit_code)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tui",
        description="Watch devices, replicas, queue and events live.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--socket", metavar="PATH", help="the daemon's Unix socket")
    parser.add_argument("--url", metavar="URL", help="a daemon elsewhere, such as http://host:8484")
    parser.add_argument("--key", metavar="KEY", help="the API key for --url")
    parser.add_argument("--once", action="store_true", help="print one frame as text and leave")
    return parser


async def _once(place: Place) -> Exit:
    from tui.feed import Feed
    from tui.frame import print_frame

    snapshot, events = await Feed(place).once()
    print_frame(snapshot, events, str(place))
    return Exit.OK


async def _watch(place: Place) -> Exit:
    from tui.app import watch
    from tui.feed import Feed

    return await watch(Feed(place))


if __name__ == "__main__":
    sys.exit(main())
