"""The command run: ask a model once, or talk with it."""

import argparse
import json
import shutil
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliosctl.answer import Answer, Listener, Message, Wishes, ask
from heliosctl.arguments import model_argument
from heliosctl.client import Client, connect, quoted
from heliosctl.exits import Exit, Failure
from heliosctl.output import say
from heliosd.core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import ReplicaView


def add(commands: "Commands") -> None:
    command = commands.add(
        "run",
        run,
        "ask a model, or talk with it when no prompt is given",
        [
            'heliosctl run org/name "What is the capital of France?"',
            "heliosctl run org/name",
            "git diff | heliosctl run org/name --system 'Write a commit message.'",
        ],
        about="The answer goes to stdout as it comes, everything else to stderr. The model is started when it "
        "does not run.",
    )
    model_argument(command)
    command.add_argument("prompt", metavar="PROMPT", nargs="*", help="what to ask; read from stdin when that is a pipe")
    command.add_argument("--system", metavar="TEXT", help="how the model should behave")
    command.add_argument("--temperature", type=float, metavar="T", help="0 takes the likeliest word each time")
    command.add_argument("--max-tokens", type=int, metavar="N", help="end the answer after so many tokens")
    command.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same answer")
    command.add_argument("--json-schema", type=_schema, metavar="FILE", help="answer with JSON that obeys this schema")
    command.add_argument("-v", "--verbose", action="store_true", help="also show how the model was started")


def _schema(path: str) -> dict[str, Any]:
    try:
        schema = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot read the schema {path}: {error}") from error
    if not isinstance(schema, dict):
        raise argparse.ArgumentTypeError(f"cannot use {path} as a schema: an object is expected")
    return schema


def run(args: Namespace) -> Exit:
    client = connect(args)
    wishes = Wishes(args.system, args.temperature, args.max_tokens, args.seed, args.json_schema)
    prompt = " ".join(args.prompt)
    if not prompt and sys.stdin.isatty():
        from heliosctl.repl import Repl

        return Repl(client, args.model, wishes, verbose=args.verbose).run()
    prompt = prompt or sys.stdin.read().strip()
    if not prompt:
        raise Failure("cannot ask nothing: give a prompt, or pipe one in", Exit.USAGE)
    answer = answer_aloud(client, args.model, [{"role": "user", "content": prompt}], wishes, chat=True)
    tell_statistics(client, args.model, answer, verbose=args.verbose)
    return Exit.OK


def answer_aloud(client: Client, model: str, talk: list[Message], wishes: Wishes, *, chat: bool) -> Answer:
    """Print the answer as it comes; that it is waited for is said on a line of the terminal that goes away."""
    line = _StatusLine(f"asking {model} …")

    def words(text: str) -> None:
        line.clear()
        sys.stdout.write(text)
        sys.stdout.flush()

    def thoughts(text: str) -> None:
        line.clear()
        sys.stderr.write(text)
        sys.stderr.flush()

    try:
        answer = ask(client, model, talk, wishes, Listener(words, thoughts, line.show), chat=chat)
    finally:
        line.clear()
    if not answer.text.endswith("\n"):
        print(flush=True)
    if chat and not answer.chat:
        say(f"({model} cannot chat: the text was completed instead)")
    return answer


class _StatusLine:
    """One line on a terminal's stderr that is wiped before anything else is said. Silent elsewhere."""

    def __init__(self, text: str) -> None:
        self._shown = False
        self.show(text)

    def show(self, text: str) -> None:
        """Say this instead."""
        if sys.stderr.isatty():
            self._shown = True
            sys.stderr.write(f"\r\x1b[K{text[: _width()]}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


def _width() -> int:
    """What fits on one line: a line that wraps cannot be wiped."""
    return max(20, shutil.get_terminal_size().columns - 1)


def tell_statistics(client: Client, model: str, answer: Answer, *, verbose: bool) -> None:
    """Say on stderr how fast it was, and with `verbose` how the model was started if it had to be."""
    facts = [f"first token {format_seconds(answer.first_token_s)}"]
    if answer.tokens_per_s is not None:
        facts.append(f"{answer.tokens_per_s:.1f} tokens/s")
    facts.append(f"{answer.tokens} tokens in {format_seconds(answer.total_s)}")
    if answer.finish_reason == "length":
        facts.append("cut at the token limit")
    say(" · ".join(facts))
    if verbose:
        for line in _start_told(client, model, answer):
            say(line)


def _start_told(client: Client, model: str, answer: Answer) -> list[str]:
    from heliosctl.replicas import phases_line
    from heliosd.wire import ReplicaView

    replicas = [ReplicaView.model_validate(row) for row in client.get("/helios/v1/replicas")["replicas"]]
    served_by = _replica_of(client, answer.ticket)
    for replica in replicas:
        if replica.id == served_by or (served_by is None and replica.model == model):
            began = time.time() - answer.total_s
            if replica.started_at < began - 1.0:  # a second for the round trips between the answer and this look
                return [f"{replica.id} was running already"]
            return [f"{replica.id} started in {phases_line(replica.phases)}", _memory(replica)]
    return []


def _replica_of(client: Client, ticket: str | None) -> str | None:
    """Which replica answered, as the journal has it; None when it does not tell."""
    if ticket is None:
        return None
    try:
        events = client.get(f"/helios/v1/explain/{quoted(ticket)}")["events"]
    except Failure as failure:
        if failure.exit_code is Exit.NOT_FOUND:
            return None
        raise
    return next((str(event["replica"]) for event in reversed(events) if event.get("replica")), None)


def _memory(replica: "ReplicaView") -> str:
    measured = format_bytes(replica.measured.total_bytes) if replica.measured else "not measured"
    return f"memory per device: predicted {format_bytes(replica.predicted.total_bytes)}, measured {measured}"
