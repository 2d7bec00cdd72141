"""What several commands take as arguments: text in, a value or words for whoever typed it."""

import argparse
from typing import Literal

from heliosd.core.units import parse_bytes


def model_argument(command: argparse.ArgumentParser, nargs: Literal["?", "+"] | None = None) -> None:
    """Add the model that a command is about."""
    command.add_argument("model", metavar="MODEL", nargs=nargs, help="org/name, org/name@rev or an alias")


def byte_size(text: str) -> int:
    """`4GiB`, `512MiB`, or plain bytes."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def count(text: str) -> int:
    """A whole number above zero."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"cannot read {text!r}: a whole number above zero is expected")
    return int(text)


def number(text: str) -> float:
    """A number above zero."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise argparse.ArgumentTypeError(f"cannot read {text!r}: a number above zero is expected")
    return found
