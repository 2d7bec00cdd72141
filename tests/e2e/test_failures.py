"""What breaks, and what is left of it: engines killed, clients gone, daemons stopped or killed in the middle."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.conftest import OTHER, SMOL, TINY
from tests.e2e.daemon import Daemon, heliosd, prepared

pytestmark = pytest.mark.slow

CONFIG = """
[devices]
host_memory = "60%"
[engines]
kv_cache = "64MiB"
[drain]
deadline_s = 60
"""
ASK = [{"role": "user", "content": "Count."}]
COUNTED = {"include_usage": True}
ON = {"ignore_eos": True}
"""The tiny model never ends by itself: its context of 2048 tokens is about four seconds."""
NOTICED_S = 3.0


@pytest.fixture(scope="module")
def daemon(stock: Path) -> Iterator[Daemon]:
    with heliosd(config=CONFIG, stock=stock) as daemon:
        yield daemon


def long_stream(daemon: Daemon, model: str = TINY, tokens: int = 1500) -> Iterator[object]:
    return iter(
        daemon.openai().chat.completions.create(
            model=model, messages=ASK, max_tokens=tokens, stream=True, stream_options=COUNTED, extra_body=ON
        )
    )


def short(daemon: Daemon, model: str = TINY) -> str:
    answer = daemon.openai().chat.completions.create(model=model, messages=ASK, max_tokens=5)
    return answer.choices[0].message.content or ""


# ---- engines that die -----------------------------------------------------------


def test_an_engine_that_is_killed_is_noticed_told_and_replaced(daemon: Daemon):
    replica = daemon.load(TINY)
    (pid,) = replica["pids"]
    stream = long_stream(daemon)
    for _ in range(5):
        next(stream)
    answers: list[str] = []

    def wait_whole() -> None:
        whole = daemon.openai().chat.completions.create(model=TINY, messages=ASK, max_tokens=1500, extra_body=ON)
        answers.append(whole.choices[0].message.content or "")

    waiting = threading.Thread(target=wait_whole)
    waiting.start()
    daemon.until(lambda: daemon.metric("helios_leases") == 2, 5, "the second request did not begin")
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    with pytest.raises(openai.APIError) as told:
        list(stream)
    noticed_s = time.monotonic() - killed_at
    assert short(daemon), "the next request is served by a fresh engine"
    waiting.join()
    print(f"killed engine noticed after {noticed_s * 1000:.0f} ms, {told.value}")
    error = told.value
    assert error.code == "engine_failed" and "killed by SIGKILL" in error.message, error.message
    assert len(error.message) < 200, "the whole log is no message"
    assert answers, "of the other request nothing was sent yet: it was asked once more"
    assert daemon.metric("helios_retries_total") == 1
    assert daemon.log().count("code=engine_failed") == 1, "a stream that broke off is an error in the log, too"
    ids = [each["id"] for each in daemon.replicas() if each["model"] == TINY]
    assert ids and replica["id"] not in ids
    (died,) = [event for event in daemon.events(subject=replica["id"]) if event["kind"] == "exited"]
    assert "SIGKILL" in died["detail"]["cause"] and "\n" not in died["message"]


def test_a_zygote_that_is_killed_takes_only_its_engines(daemon: Daemon):
    """Engines live as long as the zygote; the next request gets a new one of both."""
    short(daemon)
    ((killed, engine),) = [(replica["id"], pid) for replica in daemon.replicas() for pid in replica["pids"]]
    zygote = next(process for process in daemon.processes() if process.pid == engine).ppid()
    os.kill(zygote, signal.SIGKILL)
    gone = lambda: killed not in [each["id"] for each in daemon.replicas()]  # noqa: E731
    daemon.until(gone, NOTICED_S, "the engine's end was not noticed")
    assert short(daemon)


def test_a_model_whose_weights_are_corrupt_says_so(stock: Path, tiny_dir: Path):
    with prepared(config=CONFIG, stock=stock) as daemon:
        daemon.start()
        answer = daemon.get(f"models/{TINY}")
        (weights,) = [file for file in answer["files"] if file["path"].endswith(".safetensors")]
        blob = daemon.state / "store" / "blobs" / "sha256" / weights["digest"][:2] / weights["digest"]
        content = bytearray(blob.read_bytes())
        content[:8] = b"\xff" * 8  # the length of the header
        blob.unlink()  # it is shared with the other tests
        blob.write_bytes(content)
        with pytest.raises(openai.InternalServerError) as caught:
            short(daemon)
        assert (caught.value.status_code, caught.value.code) == (502, "engine_failed")
        print(caught.value.message)
        assert "Error: " in caught.value.message and len(caught.value.message) < 500
        assert "Traceback" in caught.value.body["cause"]
        assert int(caught.value.response.headers["retry-after"]) >= 1
        with pytest.raises(openai.InternalServerError) as again:  # held until the next try, which fails as well
            short(daemon)
        assert again.value.code == "engine_failed" and "Error: " in again.value.message
        assert len([event for event in daemon.events() if event["kind"] == "start"]) == 2
        assert daemon.idle() and daemon.get("devices")["devices"][0]["free_bytes"] > 0
        log_file = daemon.state / "logs" / f"{daemon.events()[-1]['replica'] or 'r1'}.log"
        assert daemon.admin.get("/helios/v1/logs", params={"replica": "r1"}).text.strip(), log_file
        daemon.stop()


def test_a_model_that_cannot_fit_is_refused(stock: Path):
    config = CONFIG.replace('"60%"', '"256MiB"')
    with heliosd(config=config, stock=stock) as daemon:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            short(daemon, SMOL)
        assert caught.value.code == "model_cannot_fit"
        assert "weights" in caught.value.message and "MiB too little" in caught.value.message


# ---- clients that leave -----------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_frees_its_sequence(daemon: Daemon, streamed: bool):
    short(daemon)
    body = {"model": TINY, "messages": ASK, "max_tokens": 1500, "stream": streamed, **ON}
    content = json.dumps(body).encode()
    port = int(daemon.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    async with httpx.AsyncClient() as client:
        if streamed:
            await reader.readuntil(b"data: ")
        await seen(client, daemon, lambda running, leases: running == leases == 1, 5)
        began = time.monotonic()
        writer.transport.abort()
        await seen(client, daemon, lambda running, leases: running == leases == 0, 2)
        freed_s = time.monotonic() - began
    print(f"streamed={streamed}: the sequence was free {freed_s * 1000:.0f} ms after the client had left")
    daemon.until(lambda: "status=499" in daemon.log(), 2, "its line is not in the log")


async def seen(client, daemon, wanted, within_s) -> None:
    """The engine's and the node's own count; the engine's is of its last step, so a newer one is awaited."""
    async with asyncio.timeout(within_s):
        while True:
            text = (await client.get(f"{daemon.url}/metrics")).text
            running = sum(
                float(line.split()[-1]) for line in text.splitlines() if line.startswith("vllm:num_requests_running")
            )
            leases = sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("helios_leases "))
            if wanted(running, leases):
                return
            await asyncio.sleep(0.005)


# ---- daemons that end ---------------------------------------------------------------


def test_sigterm_finishes_what_is_served(stock: Path):
    with heliosd(config=CONFIG, stock=stock) as daemon:
        short(daemon)
        another = daemon.anthropic()  # importing it takes as long as the stream
        stream = long_stream(daemon, tokens=800)
        first = next(stream)
        daemon.terminate()
        daemon.until(lambda: "msg=draining" in daemon.log(), 5, "it does not drain")
        daemon.until(lambda: httpx.get(f"{daemon.url}/readyz").status_code == 503, 5, "it is still ready")
        for model in (TINY, OTHER):
            with pytest.raises(openai.InternalServerError) as caught:
                short(daemon, model)
            assert (caught.value.status_code, caught.value.code) == (503, "draining")
            assert int(caught.value.response.headers["retry-after"]) >= 1
        with pytest.raises(Exception) as refused:
            another.messages.create(model=TINY, max_tokens=5, messages=ASK)
        assert refused.value.body["error"]["type"] == "overloaded_error"
        chunks = [first, *stream]
        assert chunks[-2].choices[0].finish_reason == "length"
        assert chunks[-1].usage.completion_tokens == 800
        daemon.ended_well()


def test_a_drain_has_a_deadline(stock: Path):
    with heliosd(config=CONFIG.replace("deadline_s = 60", "deadline_s = 0.5"), stock=stock) as daemon:
        short(daemon)
        stream = long_stream(daemon)
        next(stream)
        daemon.terminate()
        with pytest.raises((openai.APIError, httpx.HTTPError)) as caught:
            list(stream)
        print(repr(caught.value))
        daemon.ended_well(within_s=15)


def test_sigterm_while_an_engine_starts(stock: Path):
    with heliosd(config=CONFIG, stock=stock) as daemon:
        caught: list[openai.APIError] = []

        def ask() -> None:
            try:
                short(daemon)
            except openai.APIError as error:
                caught.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        daemon.until(lambda: 'msg="start replica"' in daemon.log(), 10, "nothing starts")
        daemon.stop()
        asking.join()
        assert getattr(caught[0], "code", None) == "draining", caught


@pytest.mark.parametrize("moment", ["while importing", "while starting", "while serving", "while draining"])
def test_kill_nine_leaves_nothing_and_loses_nothing(stock: Path, smol_dir: Path, moment: str):
    with prepared(config=CONFIG, stock=stock) as daemon:
        daemon.start()
        before = daemon.events()
        match moment:
            case "while importing":
                body = {"source": "directory", "location": str(smol_dir), "ref": "test/again"}
                with daemon.admin.stream("POST", "/helios/v1/models", json=body) as answer:
                    assert any("fetch" in line or "progress" in line for line in answer.iter_lines())
                    daemon.kill()
            case "while starting":
                threading.Thread(target=lambda: ignoring(lambda: short(daemon)), daemon=True).start()
                daemon.until(lambda: len(daemon.processes()) > 1, 20, "nothing was started")
                daemon.until(daemon.replicas, 20, "nothing starts")
                daemon.kill()
            case "while serving" | "while draining":
                short(daemon)
                stream = long_stream(daemon)
                next(stream)
                if moment == "while draining":
                    daemon.terminate()
                    daemon.until(lambda: "msg=draining" in daemon.log(), 5, "it does not drain")
                daemon.kill()
                with pytest.raises((openai.APIError, httpx.HTTPError)):
                    list(stream)
        killed_at = time.monotonic()
        daemon.until(lambda: daemon.processes() == [], 5, "processes are left")
        print(f"{moment}: all processes were gone {time.monotonic() - killed_at:.2f} s after the daemon")

        assert check(daemon.state / "helios.db") == "ok"
        daemon.start()
        assert daemon.events()[: len(before)] == before
        names = {model["ref"] for model in daemon.get("models")["models"]}
        assert {SMOL, TINY, OTHER} <= names
        # Devices may not have been read yet.
        daemon.until(lambda: all(each["ok"] for each in daemon.get("doctor")["checks"]), 5, "doctor finds faults")
        assert "missing" not in daemon.log()
        if moment == "while importing":
            daemon.bring(smol_dir, "test/again")
        assert short(daemon)
        daemon.stop()


def check(database: Path) -> str:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        (answer,) = connection.execute("pragma integrity_check").fetchone()
    connection.close()
    return str(answer)


def ignoring(work) -> None:
    with contextlib.suppress(openai.APIError, httpx.HTTPError):
        work()
