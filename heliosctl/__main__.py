"""Runs one command and turns what goes wrong into a message and an exit code."""

import os
import sys
from collections.abc import Sequence

from heliosctl.changing import Planned, show_plans
from heliosctl.exits import Exit, Failure
from heliosctl.parser import build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code, one of `Exit`; usage errors and `--help` leave through SystemExit, as argparse does."""
    words = sys.argv[1:] if argv is None else argv
    args = build_parser(words).parse_args(words)
    try:
        code: Exit = args.handler(args)
        sys.stdout.flush()
        return int(code)
    except Planned as planned:
        return int(show_plans(args, [planned.body]))
    except Failure as failure:
        print(f"heliosctl: {failure.message}", file=sys.stderr)
        if failure.cause:
            print(f"cause: {failure.cause}", file=sys.stderr)
        return int(failure.exit_code)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return int(Exit.INTERRUPTED)
    except OSError as error:
        # Python would complain again when flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # `heliosctl logs -f | head`: the reader has enough
            return int(Exit.OK)
        print(f"heliosctl: cannot go on: {error.strerror or error}", file=sys.stderr)
        return int(Exit.FAILED)


if __name__ == "__main__":
    sys.exit(main())
