"""Reasons in sentences have kinds, and no sentence of the scenarios is of an unknown one."""

import pytest

from heliosd.core.causes import EVICTIONS, WAITS, eviction_cause, wait_cause
from heliosd.core.messages import Command, DrainReplica, Event, Hold, SleepReplica, StopReplica
from tests.scenarios.play import FILES, Player, without_answers


class Listening(Player):
    """Keeps what the scheduler said."""

    def heard(self, text: str) -> list[Command]:
        commands: list[Command] = []
        handle = self.scheduler.handle

        def listen(event: Event) -> list[Command]:
            answer = handle(event)
            commands.extend(answer)
            return answer

        self.scheduler.handle = listen  # type: ignore[method-assign]
        self.play(text)
        return commands


def test_the_scenarios_say_nothing_of_an_unknown_kind() -> None:
    kinds: set[str | None] = set()
    waits: set[str] = set()
    for file in FILES:
        for command in Listening().heard(without_answers(file.read_text())):
            if isinstance(command, SleepReplica | StopReplica | DrainReplica):
                kinds.add(eviction_cause(command.reason))
                assert eviction_cause(command.reason) != "other", (file.name, command.reason)
            if isinstance(command, Hold):
                waits.add(wait_cause(command.reason))
                assert wait_cause(command.reason) != "other", (file.name, command.reason)
    assert {"room", "patience", "drain"} <= kinds
    assert {"starting", "making_room", "held", "turn"} <= waits


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        (
            "room for org/a: needs 5.0 GiB; idle, enough, and cheapest: org/b (r1, 4.0 GiB, 2.0 s)",
            "room",
        ),
        ("room for org/a, which is pinned: needs 5.0 GiB", "pin"),
        ("room for org/a, ahead of requests: likely", "ahead"),
        ("room for one more org/a: needs 5.0 GiB", "replica"),
        ("r5 starts instead; it moves from g0 to g1: room for org/a: fits", "moved"),
        ("its KV cache of 1.0 GiB has limited it for 60 s and 9 requests wait", "growth"),
        ("host memory is nearly used up", "host_memory"),
        ("its memory did not come back", "residue"),
        ("idle for 300 s", "idle"),
        ("no lease is left", None),
        ("the moon is full", "other"),
    ],
)
def test_why_a_replica_went(sentence: str, kind: str | None) -> None:
    assert eviction_cause(sentence) == kind
    assert kind is None or kind in EVICTIONS


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("r1 is starting: weights begins, 3 of 9 s left", "starting"),
        ("r1 is waking", "waking"),
        ("r1 is falling asleep, then it wakes", "waking"),
        ("r1 works on 4 of 4 requests", "busy"),
        ("needs 5.0 GiB, 1.0 GiB free on g0; foreign processes hold the rest", "foreign"),
        ("needs 5.0 GiB; g0 will soon be full of foreign memory", "foreign"),
        ("needs 5.0 GiB, 1.0 GiB free on g0; r1 (org/b) are pinned there", "pinned"),
        ("org/a failed on g0 (1 in a row, the last: no kernel), and is tried again after a pause", "pause"),
        ("org/a is being fetched, 3.0 GiB of 7.0 GiB", "arriving"),
        ("org/a is here", "arriving"),
        ("the moon is full", "other"),
    ],
)
def test_what_a_request_waits_for(sentence: str, kind: str) -> None:
    assert wait_cause(sentence) == kind
    assert kind in WAITS
