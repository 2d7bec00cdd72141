"""Writes shell completion from the parser's own tree, so that it cannot fall behind the commands."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

# Words that are looked up when the key is pressed. A silent failure completes nothing, which is right.
_ASKED = {
    "MODEL": "$(heliosctl ls -q 2>/dev/null)",
    "REPLICA": "$(heliosctl ps -q 2>/dev/null)",
}


@dataclass(frozen=True, slots=True)
class Branch:
    """A command: the words that lead to it, and the words that may follow it."""

    path: tuple[str, ...]
    below: dict[str, str]
    """Commands below it, with their help."""
    options: dict[str, str]
    words: tuple[str, ...]
    """Choices of its positional arguments, or lookups."""


def branches(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Branch]:
    """Every command of the tree, the program itself first."""
    below: dict[str, str] = {}
    options: dict[str, str] = {}
    words: list[str] = []
    children: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            children.update(action.choices)
            below.update({choice.dest: choice.help or "" for choice in action._choices_actions})
        elif action.option_strings:
            options.update(dict.fromkeys(action.option_strings, action.help or ""))
        elif action.choices:
            words += action.choices
        else:
            words += [lookup for name, lookup in _ASKED.items() if name in str(action.metavar)]
    yield Branch(path, below, options, tuple(words))
    for name, child in children.items():
        yield from branches(child, (*path, name))


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The completion script for `bash`, `zsh` or `fish`."""
    tree = list(branches(parser))
    match shell:
        case "bash":
            return _bash(tree)
        case "zsh":
            return "autoload -U +X compinit bashcompinit\ncompinit\nbashcompinit\n" + _bash(tree)
        case _:
            return _fish(tree)


def _bash(tree: list[Branch]) -> str:
    cases = "".join(
        f'    "{" ".join(branch.path)}") words="{" ".join([*branch.below, *branch.words])}"'
        f' options="{" ".join(branch.options)}" ;;\n'
        for branch in tree
    )
    commands = "|".join(f'"{" ".join(branch.path)}"' for branch in tree if branch.path)
    return f"""\
_heliosctl() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" at="" next i words options
  for ((i = 1; i < COMP_CWORD; i++)); do
    next="${{at:+$at }}${{COMP_WORDS[i]}}"
    case "$next" in {commands}) at="$next" ;; esac
  done
  case "$at" in
{cases}  esac
  case "$word" in -*) words="$options" ;; esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$word"))
}}
complete -F _heliosctl heliosctl
"""


def _fish(tree: list[Branch]) -> str:
    lines = []
    for branch in tree:
        tests = [f"__fish_seen_subcommand_from {word}" for word in branch.path]
        tests += [f"not __fish_seen_subcommand_from {' '.join(branch.below)}"] if branch.below else []
        head = f"complete -c heliosctl -n '{'; and '.join(tests)}'"
        lines += [f"{head} -f -a {name} -d {_fish_text(text)}" for name, text in branch.below.items()]
        lines += [f"{head} -a '{word.replace('$(', '(', 1)}'" for word in branch.words]
        for option, text in branch.options.items():
            name = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            lines.append(f"{head} {name} -d {_fish_text(text)}")
    return "\n".join(lines) + "\n"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
