"""Requests that wait for a slow model: told what they wait for, seen in the queue, let go at once."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from heliosctl.__main__ import main
from tests.e2e.daemon import Daemon, heliosd
from tests.store.models import model_files, write_folder

pytestmark = pytest.mark.slow

FLEET = '[[device]]\nname = "g0"\ncapacity = "8GiB"\n'
SLOW, BROKEN, NEVER = "test/slow", "test/broken", "test/never"
CONFIG = f"""
[queue]
tell_after_s = 0.2
[models."{SLOW}"]
engine_args = {{load_s = 1.5, tokens_per_s = 200.0}}
[models."{BROKEN}"]
priority = "high"
engine_args = {{load_s = 1.0, refuses = "no such kernel"}}
[models."{NEVER}"]
engine_args = {{never_ready = true}}
"""
ASK = {"model": SLOW, "stream": True, "max_tokens": 5, "messages": [{"role": "user", "content": "are you there?"}]}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with heliosd(fleet=FLEET, config=CONFIG) as daemon:
        for number, ref in enumerate((SLOW, BROKEN, NEVER)):
            daemon.bring(write_folder(tmp_path / str(number), model_files(seed=number)), ref)
        yield daemon


def test_a_held_stream_begins_with_comments_and_goes_on_with_the_engines_events(daemon: Daemon):
    with httpx.stream("POST", f"{daemon.url}/v1/chat/completions", json=ASK, timeout=30) as answer:
        assert answer.status_code == 200
        lines = [line for line in answer.iter_lines() if line]
    comments = [line for line in lines if line.startswith(":")]
    assert comments[0].startswith(": helios state=queued position=0")
    assert 'reason="r1 is starting"' in comments[0]
    assert lines[: len(comments)] == comments, "comments come before words"
    assert all(line.startswith("data: ") for line in lines[len(comments) :])
    assert len(lines) - len(comments) == 5 + 2 and lines[-1] == "data: [DONE]"
    assert daemon.metric("helios_queue_wait_seconds_count") == 1


def test_the_openai_client_reads_a_held_stream(daemon: Daemon):
    parts = list(daemon.openai().chat.completions.create(**ASK))
    assert len(parts) == 6 and parts[-1].choices[0].finish_reason == "length"
    with pytest.raises(openai.APIError, match="no such kernel") as caught:
        list(daemon.openai().chat.completions.create(**{**ASK, "model": BROKEN}))
    assert caught.value.code == "engine_failed"


def test_who_asks_after_a_failed_start_is_held_for_the_next_try_and_told_where_it_failed(daemon: Daemon):
    ask = {**ASK, "model": BROKEN}
    with pytest.raises(openai.APIError, match="no such kernel"):
        list(daemon.openai().chat.completions.create(**ask))
    with httpx.stream("POST", f"{daemon.url}/v1/chat/completions", json=ask, timeout=30) as answer:
        lines = list(answer.iter_lines())
    told = [line for line in lines if line.startswith(": helios") and "failed on g0" in line]
    assert told and "the last: " in told[0] and "no such kernel" in told[0]
    assert any("engine_failed" in line for line in lines), "the next try failed as well, and its words are told"
    assert len([event for event in daemon.events() if event["kind"] == "start"]) == 2
    late = {**ask, "stream": False}
    refused = httpx.post(
        f"{daemon.url}/v1/chat/completions", json=late, headers={"x-helios-deadline": "0.2"}, timeout=30
    )
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "queue_timeout")
    assert "failed on g0 (2 in a row" in error["message"]


def test_the_queue_shows_who_waits_and_forgets_who_leaves(daemon: Daemon, capsys: pytest.CaptureFixture[str]):
    made = daemon.admin.post("/helios/v1/keys", json={"name": "batch", "priority": "low"}).json()
    ask = {**ASK, "model": NEVER}
    headers = {"x-api-key": made["secret"], "x-helios-priority": "high"}
    with httpx.stream("POST", f"{daemon.url}/v1/chat/completions", json=ask, headers=headers, timeout=30) as answer:
        lines = answer.iter_lines()  # when this is thrown away the connection is closed
        assert next(lines).startswith(": helios")
        (entry,) = daemon.get("queue")["queue"]
        assert (entry["model"], entry["key"], entry["priority"], entry["position"]) == (NEVER, "batch", "low", 0)
        assert entry["ticket"] == answer.headers["x-request-id"]
        assert daemon.metric("helios_queue_requests") == 1
        assert main(["--socket", str(daemon.socket), "queue", "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["queue"][0]["ticket"] == entry["ticket"]
    daemon.until(lambda: daemon.get("queue")["queue"] == [], 5, "the ticket of a client that left still waits")
