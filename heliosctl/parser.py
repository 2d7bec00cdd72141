"""The command line as a tree. Only argparse is loaded here: what a command needs, it imports when it runs."""

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from heliosctl.changing import change_options
from heliosctl.commands import CHANGES, MODULES, modules_for
from heliosctl.exits import MEANING, Exit
from heliosctl.output import FORMATS
from heliosd import __version__

Handler = Callable[[argparse.Namespace], Exit]

_EXAMPLES = """\
examples:
  heliosctl pull org/name                      fetch a model from the hub
  heliosctl run org/name "Why is the sky blue?"
  heliosctl ls                                 models of the store
  heliosctl ps                                 what runs and what waits
  heliosctl estimate org/name                  what it would take, before anything is loaded

environment:
  HELIOS_SOCKET, HELIOS_URL, HELIOS_KEY        stand for --socket, --url and --key

exit codes:
"""


class Commands:
    """Adds commands to a parser, each with its help, an example and the options all commands share."""

    def __init__(self, parser: argparse.ArgumentParser, title: str = "commands") -> None:
        self._commands = parser.add_subparsers(title=title, metavar="COMMAND", required=True, parser_class=_Command)
        self._program = parser.prog

    def add(
        self,
        name: str,
        handler: Handler | None,
        summary: str,
        examples: Sequence[str],
        *,
        about: str = "",
        aliases: Sequence[str] = (),
        listing: bool = False,
        watchable: bool = False,
    ) -> argparse.ArgumentParser:
        """Add one command. `listing` gives it `-o`, `watchable` gives it `-w`."""
        shown = "\n".join(f"  {example}" for example in examples)
        parser: argparse.ArgumentParser = self._commands.add_parser(
            name,
            aliases=list(aliases),
            help=summary,
            description=summary[0].upper() + summary[1:] + "." + (f" {about}" if about else ""),
            epilog=f"example{'s' if len(examples) > 1 else ''}:\n{shown}",
            formatter_class=_Help,
            allow_abbrev=False,
        )
        if handler is not None:
            parser.set_defaults(handler=handler)
        _connection(parser, argparse.SUPPRESS)
        if listing:
            parser.add_argument(
                "-o", "--output", choices=FORMATS, default="table", metavar="FORMAT", help="table, wide, json or yaml"
            )
        command = f"{self._program} {name}".partition(" ")[2]
        if command in CHANGES:
            change_options(parser, dry_run=command != "gc")
        if watchable:
            parser.add_argument("-w", "--watch", action="store_true", help="show again after every change")
        return parser


class _Command(argparse.ArgumentParser):
    """Takes options between and after positionals: `run MODEL --seed 1 PROMPT` is how people write."""

    _mixing = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        grouped = any(isinstance(action, argparse._SubParsersAction) for action in self._actions)
        if self._mixing or grouped:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)

    def _format_action(self, action: argparse.Action) -> str:
        # argparse prints a line for the group of commands itself, which says nothing.
        text = super()._format_action(action)
        return text.partition("\n")[2] if isinstance(action, argparse._SubParsersAction) else text


def build_parser(words: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The whole tree, or of it what is needed to understand these words."""
    parser = argparse.ArgumentParser(
        prog="heliosctl",
        description="Ask for models, look at memory, and see why the daemon did what it did.",
        epilog=_EXAMPLES + "\n".join(f"  {code.value:<4} {meaning}" for code, meaning in MEANING.items()),
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"heliosctl {__version__}")
    _connection(parser, None)
    commands = Commands(parser)
    for module in MODULES if words is None else modules_for(words):
        import_module(f"heliosctl.{module}").add(commands)
    return parser


def _connection(parser: argparse.ArgumentParser, default: Any) -> None:
    # Before or after the command: a subparser must not overwrite with its default what was said before it.
    where = parser.add_argument_group("connection")
    where.add_argument("--socket", metavar="PATH", default=default, help="the daemon's Unix socket")
    where.add_argument("--url", metavar="URL", default=default, help="a daemon elsewhere, such as http://host:8484")
    where.add_argument("--key", metavar="KEY", default=default, help="the API key for --url")
