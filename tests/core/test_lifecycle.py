"""The life of a replica, and that the documentation shows the same table."""

from pathlib import Path

import pytest

from heliosd.core.lifecycle import TRANSITIONS, IllegalTransition, State, advance


def test_every_state_can_end() -> None:
    for state in State:
        reached, todo = {state}, [state]
        while todo:
            for following in TRANSITIONS[todo.pop()] - reached:
                reached.add(following)
                todo.append(following)
        assert State.STOPPED in reached


def test_a_ready_replica_is_never_killed() -> None:
    assert State.STOPPING not in TRANSITIONS[State.READY]
    with pytest.raises(IllegalTransition, match="cannot make a ready replica stopping"):
        advance(State.READY, State.STOPPING)


def test_the_documentation_shows_this_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    for state, following in TRANSITIONS.items():
        row = f"| {state} | {', '.join(sorted(following)) or 'the end'} |"
        assert row in text, f"docs/architecture.md lacks the row: {row}"
