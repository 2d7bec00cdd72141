"""Reads the configuration, runs the daemon, and turns errors into exit codes."""

import argparse
import sys
from collections.abc import Callable, Coroutine, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliosd import __version__
from heliosd.errors import ConfigError, HeliosError

if TYPE_CHECKING:
    from heliosd.config_sources import Loaded

    Serve = Callable[[Loaded, Path | None], Coroutine[Any, Any, int]]


class Exit(IntEnum):
    """`USAGE` is argparse's own, `CONFIG` is EX_CONFIG of sysexits.h: the unit does not restart after either."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIG = 78


_EPILOG = """\
exit codes:
  0   stopped as asked, or --check found nothing wrong
  1   failed while running; the last lines on stderr say why
  2   wrong flags
  78  the configuration is wrong; every fault is listed on stderr

examples:
  heliosd --check                        is the configuration right?
  heliosd --print-config                 every setting, what it means, where it comes from
  heliosd --port 9000 --log-format json
  heliosd --simulate fleet.toml          try a fleet of GPUs on a machine that has none

Every setting can also be given as HELIOS_SECTION__KEY, such as HELIOS_API__PORT=9000.
A flag wins over a variable, a variable over conf.d/*.toml, and those over helios.toml.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="heliosd",
        description="Serves any model it knows from this machine's GPUs, without running out of memory.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"heliosd {__version__}")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="check the configuration and exit")
    only.add_argument("--print-config", action="store_true", help="print the configuration, explained, and exit")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="read FILE, and conf.d beside it, instead of the usual files"
    )
    parser.add_argument(
        "--simulate", metavar="FLEET.TOML", type=Path, help="use the devices and engines described there, not real ones"
    )
    # No defaults and no types here: what a flag may be is decided where all other sources are checked.
    setting = parser.add_argument_group("settings")
    setting.add_argument("--host", dest="api.host", metavar="ADDRESS", help="address to listen on (api.host)")
    setting.add_argument("--port", dest="api.port", metavar="N", help="TCP port, 0 for any free one (api.port)")
    setting.add_argument("--socket", dest="api.socket", metavar="PATH", help="Unix socket (api.socket)")
    setting.add_argument(
        "--state-dir", dest="node.state_dir", metavar="DIR", help="database and models (node.state_dir)"
    )
    setting.add_argument("--log-level", dest="log.level", metavar="LEVEL", help="debug, info, warning or error")
    setting.add_argument("--log-format", dest="log.format", metavar="FORMAT", help="keyvalue or json (log.format)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run heliosd with these arguments (default: the process's own) and return its exit code."""
    given: dict[str, Any] = vars(_parser().parse_args(argv))
    flags = {dotted: value for dotted, value in given.items() if "." in dotted and value is not None}
    for path in ("api.socket", "node.state_dir"):
        if path in flags:
            flags[path] = str(Path(flags[path]).expanduser().absolute())  # on the command line, relative to here

    from heliosd.config_sources import load_settings

    simulate: Path | None = given["simulate"]
    try:
        if simulate and not simulate.is_file():
            raise ConfigError(f"cannot simulate {simulate}: there is no such file")
        loaded = load_settings(flags, config=given["config"])
        if given["check"]:
            print(f"ok: {', '.join(map(str, loaded.files)) or 'no files, defaults only'}")  # noqa: T201
            return Exit.OK
        if given["print_config"]:
            from heliosd.config_show import show

            print(show(loaded), end="")  # noqa: T201
            return Exit.OK
    except ConfigError as error:
        print(f"heliosd: {error.message}", file=sys.stderr)  # noqa: T201
        return Exit.CONFIG
    from heliosd.daemon import serve

    return run(serve, loaded, simulate)


def run(serve: "Serve", loaded: "Loaded", simulate: Path | None) -> int:
    """Set up logging and run the daemon to its end. Whatever it raises becomes a line on stderr and an exit code."""
    import logging

    import uvloop

    from heliosd import logs

    handler = logs.setup(loaded.settings.log.level, loaded.settings.log.format)
    log = logging.getLogger("heliosd")
    try:
        return int(uvloop.run(serve(loaded, simulate)))
    except KeyboardInterrupt:
        return Exit.OK
    except Exception as error:  # the last stop: what nobody could act on
        known = _known_errors(error)
        for each in known:
            log.error("heliosd failed", extra={"reason": each.message, "cause": each.cause or each.__cause__})
        if not known:
            log.critical("heliosd failed", exc_info=True)
        return Exit.CONFIG if known and all(isinstance(each, ConfigError) for each in known) else Exit.FAILED
    finally:
        handler.close()


def _known_errors(error: BaseException) -> list[HeliosError]:
    """Helios' own errors, also out of a task group's; empty when something else is among them."""
    if isinstance(error, BaseExceptionGroup):
        inner = [_known_errors(each) for each in error.exceptions]
        return [each for known in inner for each in known] if all(inner) else []
    return [error] if isinstance(error, HeliosError) else []


if __name__ == "__main__":
    sys.exit(main())
