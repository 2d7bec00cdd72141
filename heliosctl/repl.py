"""A conversation on the terminal: prompt, answer, and a few commands that begin with a slash."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from heliosctl.answer import Message, Wishes
from heliosctl.client import Client
from heliosctl.exits import Exit, Failure
from heliosctl.output import say
from heliosctl.run import answer_aloud, tell_statistics

_HELP = """\
/bye          leave (Ctrl-D does too)
/clear        forget the conversation
/set          show the settings
/set NAME X   set system, temperature, max-tokens or seed; without X back to the model's own
Ctrl-C stops an answer. Lines between two \"\"\" are one prompt."""
_FENCE = '"""'


class Repl:
    """Holds one conversation. Ctrl-C stops the answer, not the conversation."""

    def __init__(
        self,
        client: Client,
        model: str,
        wishes: Wishes,
        *,
        verbose: bool = False,
        read: Callable[[str], str] = input,
    ) -> None:
        self._client = client
        self._model = model
        self._wishes = wishes
        self._verbose = verbose
        self._read = read
        self._talk: list[Message] = []
        self._chat = True

    def run(self) -> Exit:
        """Talk until /bye or the end of input."""
        history = _open_history()
        say(f"talking with {self._model}; /help lists what else can be said")
        try:
            while True:
                try:
                    line = self._line().strip()
                except KeyboardInterrupt:
                    say("\n(/bye or Ctrl-D leaves)")
                    continue
                except EOFError:
                    say("")
                    return Exit.OK
                if line == "/bye":
                    return Exit.OK
                if line.startswith("/"):
                    self._command(line)
                elif line:
                    self._answer(line)
        finally:
            _save_history(history)

    def _line(self) -> str:
        line = self._read(">>> ")
        if not line.startswith(_FENCE):
            return line
        lines = [line.removeprefix(_FENCE)]
        while not lines[-1].rstrip().endswith(_FENCE):
            lines.append(self._read("... "))
        return "\n".join(lines).rstrip().removesuffix(_FENCE)

    def _answer(self, prompt: str) -> None:
        talk = [*self._talk, {"role": "user", "content": prompt}]
        try:
            answer = answer_aloud(self._client, self._model, talk, self._wishes, chat=self._chat)
        except KeyboardInterrupt:
            print(flush=True)
            say("(stopped)")
            return
        except Failure as failure:
            say(f"heliosctl: {failure.message}")
            if failure.cause:
                say(f"cause: {failure.cause}")
            return
        self._chat = answer.chat
        self._talk = [*talk, {"role": "assistant", "content": answer.text}]
        tell_statistics(self._client, self._model, answer, verbose=self._verbose)

    def _command(self, line: str) -> None:
        match line.split(maxsplit=2):
            case ["/clear"]:
                self._talk = []
                say("the conversation is forgotten")
            case ["/set"]:
                say(self._settings())
            case ["/set", name]:
                self._set(name, None)
            case ["/set", name, value]:
                self._set(name, value)
            case ["/help"]:
                say(_HELP)
            case _:
                say(f"cannot do {line.split(maxsplit=1)[0]}\n{_HELP}")

    def _set(self, name: str, value: str | None) -> None:
        try:
            match name:
                case "system":
                    self._wishes = replace(self._wishes, system=value)
                case "temperature":
                    self._wishes = replace(self._wishes, temperature=None if value is None else float(value))
                case "max-tokens":
                    self._wishes = replace(self._wishes, max_tokens=None if value is None else int(value))
                case "seed":
                    self._wishes = replace(self._wishes, seed=None if value is None else int(value))
                case _:
                    say(f"cannot set {name}: there are system, temperature, max-tokens and seed")
                    return
        except ValueError:
            say(f"cannot set {name} to {value!r}: a number is expected")
            return
        say(self._settings())

    def _settings(self) -> str:
        wishes = self._wishes
        named = {
            "system": wishes.system,
            "temperature": wishes.temperature,
            "max-tokens": wishes.max_tokens,
            "seed": wishes.seed,
        }
        return "\n".join(f"{name:<12} {'(as the model likes)' if v is None else v}" for name, v in named.items())


def _open_history() -> Path | None:
    """Load the readline history; None where there is no readline or it cannot be kept."""
    try:
        import readline
    except ImportError:
        return None
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state) / "helios" / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            readline.read_history_file(path)
    except OSError as error:
        print(f"(no history: {error})", file=sys.stderr)
        return None
    readline.set_history_length(1000)
    return path


def _save_history(path: Path | None) -> None:
    if path is None:
        return
    import readline

    try:
        readline.write_history_file(path)
        path.chmod(0o600)  # prompts are private
    except OSError as error:
        say(f"(the history is not kept: {error})")
