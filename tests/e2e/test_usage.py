"""What keys used adds up to what engines counted, whoever dies meanwhile; budgets hold; the account is exported."""

import csv
import io
import random
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import TINY
from tests.e2e.daemon import Daemon, hard_kill, heliosd, prepared
from tests.store.models import model_files, write_folder

pytestmark = pytest.mark.slow

FLEET = '[[device]]\nname = "g"\ncount = 3\ncapacity = "8GiB"\nkind = "NVIDIA H100 80GB HBM3"\n'
MODELS = [f"test/m{number}" for number in range(3)]
PRICES = '[prices]\ncurrency = "EUR"\ngpu_hour = {H100 = 3600.0}\nprompt_million = 1.0\ncompletion_million = 2.0\n'
CONFIG = f'{PRICES}[engines]\nkv_cache = "4GiB"\n' + "".join(
    f'[models."{ref}"]\nengine_args = {{load_s = 0.05, tokens_per_s = 2000.0, dies_of = "boom"}}\n' for ref in MODELS
)
TOLERANCE = 0.001


@pytest.fixture
def node(tmp_path: Path):
    with prepared(fleet=FLEET, config=CONFIG) as daemon:
        daemon.start()
        for number, ref in enumerate(MODELS):
            daemon.bring(write_folder(tmp_path / str(number), model_files(seed=number)), ref)
        yield daemon
        daemon.stop()


def make_key(node: Daemon, name: str, **terms: Any) -> str:
    answer = node.admin.post("/helios/v1/keys", json={"name": name, **terms})
    assert answer.is_success, answer.text
    return str(answer.json()["secret"])


def ask(node: Daemon, key: str, model: str, *, n_tokens: int, words: str = "one two three", take: int | None = None):
    """A stream of which at most `take` words are read; returns how many came."""
    body = {"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": n_tokens, "stream": True}
    came = 0
    headers = {"authorization": f"Bearer {key}"}
    with (
        suppress(httpx.TransportError),
        httpx.stream("POST", f"{node.url}/v1/chat/completions", json=body, headers=headers, timeout=30) as answer,
    ):
        for line in answer.iter_lines():
            came += '"content"' in line
            if take is not None and came >= take:
                break
    return came


def usage(node: Daemon, **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = node.get("usage", **query)
    return found


def sums(found: dict[str, Any]) -> tuple[int, int]:
    rows = found["usage"]
    return sum(row["prompt_tokens"] for row in rows), sum(row["completion_tokens"] for row in rows)


def scraped(node: Daemon) -> tuple[float, float]:
    return node.metric("vllm:prompt_tokens_total"), node.metric("vllm:generation_tokens_total")


def quiet(node: Daemon) -> bool:
    return node.metric("helios_leases") == 0


def heliosctl(node: Daemon, *words: str) -> str:
    command = [sys.executable, "-m", "heliosctl", "--socket", str(node.socket), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_keys_add_up_to_what_engines_counted_through_a_storm_with_crashes(node: Daemon):
    keys = {name: make_key(node, name) for name in ("ann", "bob", "cid")}
    dice, came, killed = random.Random(11), 0, 2
    for life in range(killed + 1):
        wishes = [
            (
                dice.choice([*keys.values()]), dice.choice(MODELS), dice.randint(5, 400),
                dice.choice([None, None, None, 3]), "boom" if dice.random() < 0.01 else "one two three",
            )
            for _ in range(200)
        ]  # fmt: skip
        with ThreadPoolExecutor(16) as threads:
            asked = [threads.submit(ask, node, w[0], w[1], n_tokens=w[2], take=w[3], words=w[4]) for w in wishes]
            if life < killed:
                node.until(lambda some=asked: sum(each.done() for each in some) > 150, 60, "the storm got stuck")
                node.kill()
        came += sum(each.result() for each in asked)
        if life < killed:
            node.start()
    node.until(lambda: quiet(node), 10, "requests never ended")
    found = usage(node, by="key,model,day")
    prompt, completion = sums(found)
    assert completion > came * 0.95 > 30_000, "a crash may lose a tenth of a second: at the speed of this engine a lot"
    assert prompt == pytest.approx(found["engine_prompt_tokens"], rel=TOLERANCE)
    assert completion == pytest.approx(found["engine_completion_tokens"], rel=TOLERANCE)
    assert {row["key"] for row in found["usage"]} == {*keys, "(idle)"}
    told = [event["message"] for event in node.events(limit=10_000) if event["kind"] == "usage"]
    assert len(told) == killed and all("did not end well" in message for message in told)
    assert sums(usage(node)) == sums(usage(node, by="model")) == (prompt, completion)


def test_a_life_without_a_crash_equals_the_counters_exactly(node: Daemon):
    key = make_key(node, "ann")
    with ThreadPoolExecutor(8) as threads:
        takes = [None, 2, None, None] * 10
        list(threads.map(lambda take: ask(node, key, MODELS[0], n_tokens=100, take=take), takes))
    node.until(lambda: quiet(node), 10, "requests never ended")
    (row,) = [row for row in usage(node, by="key")["usage"] if row["key"] == "ann"]
    assert (row["prompt_tokens"], row["completion_tokens"]) == scraped(node)
    assert 2 * 10 < row["completion_tokens"] - 30 * 100 < 100 * 10, "what was broken off counts as far as it came"
    assert row["requests"] == 40
    assert node.metric("helios_key_tokens_total") == row["prompt_tokens"] + row["completion_tokens"]
    assert row["cost"] == pytest.approx(
        row["memory_cost"] + row["prompt_tokens"] / 1e6 + 2 * row["completion_tokens"] / 1e6
    )


def test_memory_of_keys_and_idle_time_is_all_that_was_promised(node: Daemon):
    key = make_key(node, "ann")
    node.load(MODELS[0])
    ask(node, key, MODELS[0], n_tokens=1000)
    (device,) = [each for each in node.get("devices")["devices"] if each["promised_bytes"]]
    first, begin = usage(node, by="key"), node.get("node")["uptime_s"]
    ask(node, key, MODELS[0], n_tokens=1000)
    second, end = usage(node, by="key"), node.get("node")["uptime_s"]
    used = [sum(row["gib_s"] for row in found["usage"]) for found in (first, second)]
    assert used[1] - used[0] == pytest.approx(device["promised_bytes"] / 2**30 * (end - begin), rel=0.05)
    assert {row["key"]: row["gib_s"] > 0 for row in second["usage"]} == {
        "ann": True,
        "(idle)": True,
        "(none)": True,
    }, "the load itself was nobody's with a key"
    share = device["promised_bytes"] / device["capacity_bytes"]
    cost = sum(row["memory_cost"] for row in second["usage"]) - sum(row["memory_cost"] for row in first["usage"])
    assert cost == pytest.approx(share * (end - begin), rel=0.05), "a device costs 1 EUR a second"


def test_a_key_that_used_up_its_tokens_is_refused_until_tomorrow(node: Daemon):
    client = node.openai(make_key(node, "ann", tokens_per_day=50))
    chat = lambda: client.chat.completions.create(  # noqa: E731
        model=MODELS[0], messages=[{"role": "user", "content": "are you there?"}], max_tokens=30
    )
    chat(), chat()
    with pytest.raises(Exception, match="of 50 tokens") as refused:
        chat()
    assert (refused.value.status_code, refused.value.code) == (429, "insufficient_quota")
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 86_400
    (event,) = node.until(
        lambda: [event for event in node.events(limit=1000) if event["kind"] == "over budget"], 5, "it is not told"
    )
    assert event["detail"] == {"key": "ann"} and event["ticket"]
    heliosctl(node, "keys", "set", "ann", "--tokens-per-day", "none", "--budget", "1e-6/month")
    with pytest.raises(Exception, match="EUR of"):
        chat()
    heliosctl(node, "keys", "set", "ann", "--budget", "none")
    chat()
    assert node.metric("helios_key_refusals_total") == 2


def test_the_account_is_shown_and_exported(node: Daemon):
    ask(node, make_key(node, "ann"), MODELS[0], n_tokens=20)
    node.until(lambda: quiet(node), 10, "the request never ended")
    lines = heliosctl(node, "usage").splitlines()
    assert lines[0].split()[:3] == ["KEY", "REQUESTS", "PROMPT"]
    assert [line.split()[:5] for line in lines if line.startswith("ann")] == [["ann", "1", "3", "0", "20"]]
    rows = list(csv.DictReader(io.StringIO(heliosctl(node, "usage", "-o", "csv", "--since", "1d"))))
    assert {(row["key"], row["model"], row["device"]) for row in rows if row["requests"] == "1"} == {
        ("ann", MODELS[0], "NVIDIA H100 80GB HBM3")
    }
    charges = list(csv.DictReader(io.StringIO(heliosctl(node, "usage", "-o", "focus"))))
    assert {each["SkuMeter"] for each in charges} == {"memory", "prompt-tokens", "completion-tokens"}
    assert all(re.fullmatch(r"[\d.]+", each["BilledCost"]) for each in charges)
    for query in ({"by": "colour"}, {"since": "yesterday"}, {"format": "pdf"}):
        answer = node.admin.get("/helios/v1/usage", params=query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(query)))
    assert node.admin.post("/helios/v1/keys", json={"name": "(idle)"}).status_code == 400


def test_a_real_engine_is_metered_by_its_own_counters(stock: Path):
    with heliosd(stock=stock, config=f'{PRICES}[models."{TINY}"]\nmax_num_seqs = 8\n') as node:
        key = make_key(node, "ann")
        client = node.openai(key)
        asked = {"model": TINY, "messages": [{"role": "user", "content": "say something long " * 200}]}
        whole = client.chat.completions.create(**asked, max_tokens=17)
        client.chat.completions.create(**asked, max_tokens=9, n=2, temperature=1.0)
        client.completions.create(model=TINY, prompt=["a b c", "d e"], max_tokens=5)
        client.responses.create(model=TINY, input="hello there", max_output_tokens=16)
        node.anthropic(key).messages.create(**asked, max_tokens=7)
        with ThreadPoolExecutor(6) as threads:
            takes = [None, 3, None, 5, None, 1, None, None]
            list(threads.map(lambda take: ask(node, key, TINY, n_tokens=200, take=take), takes))
        node.until(lambda: quiet(node), 10, "requests never ended")
        assert whole.usage is not None
        (row,) = [row for row in usage(node, by="key")["usage"] if row["key"] == "ann"]
        assert (row["prompt_tokens"], row["completion_tokens"]) == pytest.approx(scraped(node), rel=TOLERANCE)
        assert row["cached_tokens"] == node.metric("vllm:prompt_tokens_cached_total") > 0
        assert row["requests"] == 13
        found = usage(node)
        assert (found["engine_prompt_tokens"], found["engine_completion_tokens"]) == scraped(node)

        (engine,) = node.replicas()[0]["pids"]
        with ThreadPoolExecutor(1) as threads:
            cut_short = threads.submit(ask, node, key, TINY, n_tokens=400)
            node.until(lambda: sums(usage(node))[1] > sums(found)[1] + 5, 20, "the answer did not begin")
            hard_kill(engine)
            assert cut_short.result() > 5
        node.until(lambda: quiet(node), 10, "the request never ended")
        after = usage(node)
        assert sums(after) == (after["engine_prompt_tokens"], after["engine_completion_tokens"])


def test_advice_goes_by_the_same_prices() -> None:
    fleet = '[[device]]\nname = "g0"\ncapacity = "8GiB"\n'
    with heliosd(fleet=fleet, config='[prices]\ncurrency = "EUR"\ngib_hour = {"*" = 0.5}\n') as daemon:
        found = daemon.get("recommendations")
    assert found["gib_hour_price"] == 0.5
    assert found["price_source"] == "[prices] of the configuration, in EUR"
