"""Every code that is raised is documented with its status, and known to heliosctl."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import heliosd
from heliosctl.exits import exit_for
from heliosd import errors
from heliosd.api.codes import CODES
from heliosd.api.errors import _ENGINE_CODES
from heliosd.core.messages import RefusalCode
from heliosd.errors import HeliosError

SAID_AT_THE_TERMINAL = {"already_running", "bad_configuration"}
"""The daemon ends with these before it answers anybody."""
OF_ITS_OWN = {"idempotency_key_reused"}
"""Others with its status mean that no device could hold a model."""
STATUS = {code: status for code, status, _ in CODES}
KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, HeliosError)}
_RAISES = re.compile(rf"\bcode\b|\b({'|'.join([*KINDS, 'HttpFault'])})\(")
"""Files without any of these raise no code; to parse them takes longer than to read them."""


@pytest.fixture(scope="module")
def raised() -> list[tuple[str, int | None, str]]:
    return list(everything_raised())


def everything_raised() -> Iterator[tuple[str, int | None, str]]:
    """Code, status where the place tells it, and the place."""
    for file in Path(heliosd.__file__).parent.rglob("*.py"):
        text = file.read_text()
        if not _RAISES.search(text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Dict):  # what a converting process reports
                pairs = zip(node.keys, node.values, strict=True)
                for key, value in pairs:
                    if isinstance(key, ast.Constant) and key.value == "code" and isinstance(value, ast.Constant):
                        yield value.value, None, f"{file.name}:{node.lineno}"
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", "")
            kind = KINDS.get(name)
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            where = f"{file.name}:{node.lineno}"
            for value in given:
                for word in ast.walk(value):
                    if isinstance(word, ast.Constant) and isinstance(word.value, str):
                        yield word.value, kind and kind.status, where
            if kind is not None and not given:
                yield kind.code, kind.status, where
            if name == "HttpFault" and isinstance(node.args[0], ast.Constant):
                yield ast.literal_eval(node.args[1]), ast.literal_eval(node.args[0]), where


def test_every_code_that_is_raised_is_documented_with_its_status(raised: list[tuple[str, int | None, str]]) -> None:
    found = [each for each in raised if each[0] not in SAID_AT_THE_TERMINAL]
    assert len(found) > 100
    wrong = [(*each, STATUS.get(each[0])) for each in found if each[1] not in (None, STATUS.get(each[0]))]
    assert wrong == []
    said_elsewhere = {*RefusalCode, *_ENGINE_CODES.values(), "engine_error", "context_length_exceeded"}
    assert said_elsewhere | {code for code, _, _ in found} <= STATUS.keys()


def test_no_code_is_documented_that_nobody_raises(raised: list[tuple[str, int | None, str]]) -> None:
    found = {code for code, _, _ in raised}
    by_engines = {*_ENGINE_CODES.values(), "engine_error", "context_length_exceeded"}
    assert STATUS.keys() <= found | set(RefusalCode) | by_engines


@pytest.mark.parametrize(("code", "status"), STATUS.items())
def test_an_event_without_a_status_means_the_same_to_heliosctl(code: str, status: int) -> None:
    assert code in OF_ITS_OWN or exit_for(code, None) == exit_for(None, status)
