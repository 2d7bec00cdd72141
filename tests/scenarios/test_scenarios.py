"""Every scenario file says what the scheduler says. After a wanted change: `python -m tests.scenarios --rewrite`."""

from pathlib import Path

import pytest

from tests.scenarios.play import FILES, Player, without_answers


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_scenario(file: Path) -> None:
    text = file.read_text()
    assert Player().play(without_answers(text)) == text


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 8
