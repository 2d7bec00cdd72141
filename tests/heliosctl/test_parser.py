import argparse
import subprocess
import sys

import pytest

from heliosctl.commands import MODULES, modules_for
from heliosctl.exits import MEANING, Exit, exit_for
from heliosctl.parser import build_parser


def walk(parser, path=()):
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from walk(child, (*path, name))


COMMANDS = [(path, parser) for path, parser in walk(build_parser()) if path]


def test_all_the_promised_commands_are_there():
    names = [" ".join(path) for path, _ in COMMANDS]
    promised = "run, pull, import, ls, show, rm, ps, load, stop, estimate, explain, gpus, logs, events, doctor, top"
    for name in f"{promised}, version, completion, cluster ls, keys add, keys ls, keys rm".split(", "):
        assert name in names


@pytest.mark.parametrize(("path", "parser"), COMMANDS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_has_help_with_an_example(path, parser):
    assert parser.description.endswith(".")
    assert "example" in parser.epilog
    assert f"heliosctl {path[0]}".replace("devices", "gpus") in parser.epilog
    for action in parser._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action
    assert parser.format_help()


@pytest.mark.parametrize("words", [["--socket", "/s", "ls"], ["ls", "--socket", "/s"]])
def test_the_connection_may_stand_before_or_after_the_command(words):
    assert build_parser().parse_args(words).socket == "/s"


@pytest.mark.parametrize("module", MODULES)
def test_each_module_has_the_commands_that_it_is_said_to_have(module):
    """What a command line needs is chosen by that list, so a command missing there would be unknown."""
    parser = build_parser([MODULES[module][0]])
    [action] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    assert tuple(action.choices) == MODULES[module]


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (["ls", "-o", "wide"], ("models",)),
        (["--socket", "ps", "--url=x", "ls"], ("models",)),
        (["devices"], ("node",)),
        (["lls"], tuple(MODULES)),
        (["--help", "ls"], tuple(MODULES)),
        ([], tuple(MODULES)),
        (["--socket"], tuple(MODULES)),
    ],
)
def test_only_the_module_of_a_known_command_is_loaded(words, modules):
    assert modules_for(words) == modules


def test_listing_models_loads_nothing_of_other_commands(tmp_path):
    script = (
        "import sys\n"
        "from heliosctl.__main__ import main\n"
        f"main(['--socket', {str(tmp_path / 'none')!r}, 'ls'])\n"
        "heavy = {'pydantic', 'rich', 'asyncio', 'subprocess', 'heliosctl.run', 'heliosd.wire'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stderr=subprocess.DEVNULL)


def test_a_misspelt_command_is_a_usage_error(ctl):
    assert ctl("lls").code == Exit.USAGE


def test_every_exit_code_has_a_meaning_and_the_help_lists_it(ctl):
    out = ctl("--help").out
    for code in Exit:
        assert f"  {code.value:<4} {MEANING[code]}" in out
    assert exit_for("model_cannot_fit", 400) is Exit.CANNOT_FIT


def test_help_loads_nothing_heavy():
    script = (
        "import sys\n"
        "from heliosctl.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'rich', 'aiohttp', 'textual', 'asyncio', 'readline'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_options_may_stand_between_model_and_prompt() -> None:
    args = build_parser().parse_args(["run", "m", "--temperature", "0", "two", "words", "--seed", "1"])
    assert (args.model, args.prompt, args.seed) == ("m", ["two", "words"], 1)
