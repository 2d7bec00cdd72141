"""Log lines: one each, readable back, with the ticket; the writer never waits; the recent log loses nothing."""

import asyncio
import contextlib
import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd import logs

_PAIR = re.compile(r'([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|[^ "]*)(?: |$)')


def record(msg: str = "engine ready", *args: object, **fields: object) -> logging.LogRecord:
    made = logging.getLogger("heliosd.test").makeRecord(
        "heliosd.test", logging.INFO, "f", 1, msg, args, None, extra=fields
    )
    made.created = 0.5
    return made


def read(line: str) -> dict[str, str]:
    """A reader of key=value lines that insists on the whole line being one."""
    pairs, at = {}, 0
    while at < len(line):
        match = _PAIR.match(line, at)
        assert match, f"no pair at {line[at:]!r}"
        pairs[match[1]] = json.loads(match[2]) if match[2].startswith('"') else match[2]
        at = match.end()
    return pairs


def test_a_line_in_key_value() -> None:
    line = logs.KeyValue().format(record(replica="r1", seconds=1.9000001, cause=None, tasks=("generate",)))
    assert line == (
        'ts=1970-01-01T00:00:00.500Z level=info logger=heliosd.test msg="engine ready" '
        'replica=r1 seconds=1.9 cause=null tasks="[\\"generate\\"]"'
    )


def test_a_line_in_json() -> None:
    assert json.loads(logs.JsonLine().format(record("%d of %d", 1, 2, path=io, seconds=1.5))) == {
        "ts": "1970-01-01T00:00:00.500Z",
        "level": "info",
        "logger": "heliosd.test",
        "msg": "1 of 2",
        "path": str(io),
        "seconds": 1.5,
    }


@given(st.text(), st.text())
def test_whatever_a_client_sends_stays_within_one_line_and_one_field(msg: str, value: str) -> None:
    line = logs.KeyValue().format(record("%s", msg, value=value))
    assert line.isprintable()
    fields = read(line)
    assert list(fields) == ["ts", "level", "logger", "msg", "value"]
    assert (fields["msg"], fields["value"]) == (msg, value)
    line = logs.JsonLine().format(record("%s", msg, value=value))
    assert line.isascii() and "\n" not in line
    assert (json.loads(line)["msg"], json.loads(line)["value"]) == (msg, value)


def test_an_exception_is_a_field() -> None:
    made = record()
    try:
        raise ValueError("no\nroom")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "ValueError: no\nroom" in read(logs.KeyValue().format(made))["exception"]
    assert "ValueError: no\nroom" in json.loads(logs.JsonLine().format(made))["exception"]


def test_a_field_cannot_take_the_place_of_a_lines_own() -> None:
    fields = read(logs.KeyValue().format(record(level="critical", ts=1)))
    assert (fields["level"], fields["level_"], fields["ts_"]) == ("info", "critical", "1")


async def test_every_task_logs_its_own_ticket() -> None:
    lines: list[str] = []

    async def work(ticket: str) -> None:
        logs.ticket_var.set(ticket)
        await asyncio.sleep(0)
        lines.append(logs.KeyValue().format(record()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work("t1"))
        tasks.create_task(work("t2"))
    assert [read(line)["ticket"] for line in lines] == ["t1", "t2"]
    assert "ticket" not in read(logs.KeyValue().format(record()))


def test_a_line_has_the_trace_that_it_belongs_to() -> None:
    assert "trace_id" not in json.loads(logs.JsonLine().format(record()))
    token = logs.trace_id_var.set("4bf92f3577b34da6a3ce929d0e0e4736")
    try:
        assert json.loads(logs.JsonLine().format(record()))["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    finally:
        logs.trace_id_var.reset(token)


# ---- the whole set-up ------------------------------------------------------


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards as it was."""
    root, ours = logging.getLogger(), logging.getLogger("heliosd")
    before = (root.handlers[:], root.level, ours.level)
    yield root
    for handler in root.handlers[:]:
        if isinstance(handler, logs.LineHandler):
            handler.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.captureWarnings(False)


def test_lines_reach_the_stream_and_the_recent_log_in_order(root: logging.Logger) -> None:
    stream = io.StringIO()
    handler = logs.setup("info", "keyvalue", stream)
    log = logging.getLogger("heliosd.test")
    for n in range(100):
        log.info("n", extra={"n": n})
    handler.close()
    written = stream.getvalue().splitlines()
    assert [read(line)["n"] for line in written] == [str(n) for n in range(100)]
    assert logs.recent_log().lines() == written
    assert logs.recent_log().lines(2) == written[-2:]
    assert logs.recent_log().lines(0) == []


def test_level_and_format_can_be_changed(root: logging.Logger) -> None:
    stream = io.StringIO()
    handler = logs.setup("warning", "keyvalue", stream)
    ours, other = logging.getLogger("heliosd.test"), logging.getLogger("aiohttp.access")
    ours.info("hidden")
    logs.set_level("debug")
    logs.set_format("json")
    ours.debug("shown")
    other.debug("hidden")
    other.info("shown too")
    logs.set_level("info")
    other.info("hidden")
    handler.close()
    assert [json.loads(line)["msg"] for line in stream.getvalue().splitlines()] == ["shown", "shown too"]


def test_a_stderr_that_nobody_reads_stalls_nothing(caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w", buffering=1) as stalled:
        os.set_blocking(reading, True)
        writer = logs.Writer(stalled, limit=10)
        for _ in range(30):
            writer.put("x" * 65536)  # each as large as the pipe: the thread hangs on the second at the latest
        assert writer._dropped >= 18
        dropped = writer._dropped
        received = bytearray()
        drained = threading.Thread(target=lambda: received.extend(reader.read()))
        drained.start()
        writer.close(30)
        stalled.close()
        drained.join(30)
    assert len(received) == (30 - dropped) * 65537
    assert [(line.message, line.__dict__["lines"]) for line in caplog.records] == [("log lines dropped", dropped)]


def test_a_closed_stream_does_not_end_the_writer() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    os.close(reading)
    writer = logs.Writer(stream)
    writer.put("nobody reads this")
    writer.put("nor this")
    writer.close()
    assert not writer._thread.is_alive()
    with contextlib.suppress(BrokenPipeError):
        stream.close()


# ---- the recent log --------------------------------------------------------


def test_the_recent_log_keeps_the_last_lines() -> None:
    recent = logs.RecentLog(kept=3)
    for n in range(5):
        recent.append(str(n))
    assert recent.lines() == ["2", "3", "4"]


async def test_following_gives_the_last_and_then_every_new_line_without_a_gap() -> None:
    recent = logs.RecentLog()
    recent.append("old")
    recent.append("last")
    lines = recent.follow(last=1)
    assert await anext(lines) == "last"
    writers = [threading.Thread(target=lambda: [recent.append("new") for _ in range(200)]) for _ in range(4)]
    for each in writers:
        each.start()
    async with asyncio.timeout(10):
        assert [await anext(lines) for _ in range(800)] == ["new"] * 800
    for each in writers:
        each.join()
    await lines.aclose()  # type: ignore[attr-defined]
    assert recent._followers == []
    recent.append("nobody follows")


async def test_a_follower_that_reads_too_slowly_loses_the_oldest() -> None:
    recent = logs.RecentLog(kept=3)
    recent.append("old")
    lines = recent.follow(last=1)
    assert await anext(lines) == "old"
    for n in range(5):
        recent.append(str(n))
    assert [await anext(lines) for _ in range(3)] == ["2", "3", "4"]
    await lines.aclose()  # type: ignore[attr-defined]
