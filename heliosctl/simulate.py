"""The command simulate: replays a trace against a fleet with the daemon's own scheduler, without a daemon."""

import subprocess
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.exits import Exit

if TYPE_CHECKING:
    from heliosctl.parser import Commands


def add(commands: "Commands") -> None:
    command = commands.add(
        "simulate",
        simulate,
        "replay a trace against any fleet: waiting, swapping, GPU-hours and money, beside what others would do",
        [
            "heliosctl simulate --fleet fleet.toml --trace trace.csv",
            "heliosctl simulate --fleet fleet.toml --trace trace.csv --policy all --slo 5 --json",
        ],
        about="The trace has the columns seconds,model,prompt_tokens,output_tokens; the fleet has [[device]] and "
        "[[model]] tables. No daemon is asked.",
    )
    command.add_argument("--fleet", metavar="FLEET.TOML", required=True, help="devices and models")
    command.add_argument("--trace", metavar="TRACE.CSV", required=True, help="who asked for what, and when")
    command.add_argument("--policy", metavar="A,B", help="helios, lru, ollama, llama-swap, dedicated, or all")
    command.add_argument("--slo", metavar="SECONDS", help="a first token in time; default 10")
    command.add_argument("--usd", metavar="USD", help="of a device for an hour")
    command.add_argument("--json", action="store_true", help="the figures as JSON")


def simulate(args: Namespace) -> Exit:
    said = {"--fleet": args.fleet, "--trace": args.trace, "--policy": args.policy, "--slo": args.slo, "--usd": args.usd}
    words = [word for name, value in said.items() if value is not None for word in (name, value)]
    done = subprocess.run(
        [sys.executable, "-m", "heliosd.simulation", *words, *(["-o", "json"] if args.json else [])], check=False
    )
    return {0: Exit.OK, 2: Exit.USAGE}.get(done.returncode, Exit.FAILED)
