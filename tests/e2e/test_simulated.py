"""heliosd on devices that are only said to exist: a day on a node with eight GPUs, without a model or a GPU."""

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.daemon import Daemon, heliosd, prepared, until
from tests.store.models import config, model_files, write_folder

pytestmark = pytest.mark.slow

FLEET = '[[device]]\nname = "g"\ncount = 8\ncapacity = "8GiB"\nkind = "NVIDIA H100 80GB HBM3"\nnvlink = true\n'
MODELS = [f"test/m{number}" for number in range(12)]
SETTINGS = '[engines]\nkv_cache = "4GiB"\n[queue]\npatience_s = 0.2\n[pool]\nsleep = false\nresidence_s = 0\n'
"""So large that a device of the fleet holds one model."""
SLEEPING = SETTINGS.replace("sleep = false", "sleep = true")
ASK = [{"role": "user", "content": "are you there?"}]


def tables(**more: str) -> str:
    """A table for each model; `more` adds engine arguments to one, by its last part."""
    return "".join(
        f'[models."{ref}"]\nengine_args = {{load_s = 0.05, tokens_per_s = 2000.0{more.get(ref[5:], "")}}}\n'
        for ref in MODELS
    )


@pytest.fixture(scope="module")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a dozen models."""
    folder = tmp_path_factory.mktemp("small")
    with prepared(fleet=FLEET, config=SETTINGS) as daemon:
        daemon.state = folder / "state"
        daemon.start("--state-dir", str(daemon.state))
        for number, ref in enumerate(MODELS):
            daemon.bring(write_folder(folder / str(number), model_files(seed=number)), ref, f"alias{number}")
        daemon.stop()
    return folder / "state"


@pytest.fixture
def node(small_models: Path) -> Iterator[Daemon]:
    with heliosd(fleet=FLEET, config=SETTINGS + tables(), stock=small_models) as daemon:
        yield daemon


def chat(client: openai.OpenAI, model: str, **more: object) -> str:
    answer = client.chat.completions.create(model=model, messages=ASK, max_tokens=5, **more)
    return answer.choices[0].message.content or ""


def test_a_dozen_models_share_eight_devices_under_load(node: Daemon):
    client, dice = node.openai(), random.Random(7)
    wanted = [dice.choice(MODELS) for _ in range(240)]
    watching, seen = threading.Event(), []

    def watch() -> None:
        while not watching.is_set():
            seen.extend(node.get("devices")["devices"])

    with ThreadPoolExecutor(25) as threads:
        threads.submit(watch)
        answers = list(threads.map(lambda ref: chat(client, ref), wanted))
        watching.set()
    assert all(len(answer.split()) == 5 for answer in answers)

    assert seen, "nobody watched"
    for device in seen:  # no promise is ever made that the device cannot keep
        assert device["promised_bytes"] <= device["capacity_bytes"] - device["foreign_bytes"] - device["safety_bytes"]
        assert device["used_bytes"] <= device["capacity_bytes"]
    running = node.replicas()
    assert {replica["state"] for replica in running} == {"ready"}
    assert len({device for replica in running for device in replica["devices"]}) == len(running) == 8
    assert node.get("replicas")["queue"] == []
    assert sum(replica["leases"] for replica in running) == 0
    assert node.metric("helios_leases") == node.metric("helios_queue_length") == 0
    events = node.events(limit=10_000)
    kinds = [event["kind"] for event in events]
    assert kinds.count("grant") == len(wanted)
    assert kinds.count("start") == kinds.count("ready") > len(MODELS)
    starts = [event for event in events if event["kind"] == "start"]
    taken = {event["detail"]["takes_over"] for event in starts if "takes_over" in event["detail"]}
    assert taken, "all have one shape, and nobody began in the engine of another"
    assert node.metric("helios_hot_swaps_total") == len(taken)
    for replica in {event["replica"] for event in starts}:
        told = [event["kind"] for event in events if event["replica"] == replica]
        life = [kind for kind in told if kind not in ("grant", "first_token")]
        ends = ["exited"] if replica in taken else ["drain", "stop", "exited"]
        assert life in (["start", "ready"], ["start", "ready", *ends]), (replica, life)


def test_models_that_sleep_are_accounted_for_and_wake(small_models: Path):
    loads = "".join(  # each of a shape of its own: none begins in the engine of another
        f'[models."{ref}"]\nmax_num_seqs = {30 + number}\n'
        "engine_args = {load_s = 0.5, wake_s = 0.02, tokens_per_s = 2000.0}\n"
        for number, ref in enumerate(MODELS)
    )
    with heliosd(fleet=FLEET, config=SLEEPING + loads, stock=small_models) as node:
        client, dice = node.openai(), random.Random(8)
        wanted = [dice.choice(MODELS) for _ in range(120)]
        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(lambda ref: chat(client, ref), wanted))
        assert all(len(answer.split()) == 5 for answer in answers)
        for device in node.get("devices")["devices"]:
            assert device["used_bytes"] <= device["promised_bytes"] <= device["capacity_bytes"] - device["safety_bytes"]
        kinds = [event["kind"] for event in node.events(limit=10_000)]
        assert kinds.count("awake") > 0


def test_explain_tells_one_request_from_its_wait_to_its_end(node: Daemon):
    answer = node.openai().chat.completions.with_raw_response.create(model="alias3", messages=ASK)
    ticket = answer.headers["x-request-id"]
    node.until(lambda: node.get(f"explain/{ticket}")["events"][-1]["kind"] == "released", 5, "it never ended")
    told = node.get(f"explain/{ticket}")["events"]
    assert [event["kind"] for event in told] == ["hold", "grant", "released"]
    assert [event["at"] for event in told] == sorted(event["at"] for event in told)
    assert {event["model"] for event in told[:2]} == {"test/m3"}
    story = node.get(f"explain/{ticket}")["request"]
    assert (story["state"], story["model"]) == ("over", "test/m3") and story["steps"][0]["position"] == 0
    assert story["waited_for"]["replica"] == story["replica"] == node.replicas()[0]["id"]
    assert story["waited_for"]["took_s"] <= story["waited_s"] + 0.01 and story["waited_for"]["phases"]


def test_explain_knows_a_model_by_its_alias(node: Daemon):
    chat(node.openai(), "alias3")
    ended = lambda: {"first_token", "released"} <= {each["kind"] for each in node.events()}  # noqa: E731
    node.until(ended, 5, "the request never ended")
    by_ref = node.get("explain/test/m3")["events"]
    model = node.get("explain/alias3")["model"]
    assert model["estimate"]["verdict"] == "ready" and model["appetite"]["reload_s"] > 0
    worth = node.get(f"explain/{model['replicas'][0]['id']}")["replica"]["worth"]
    assert (worth["rank"], worth["of"]) == (1, 1) and worth["loss_s"] <= worth["slower_s"]
    assert [event["kind"] for event in by_ref[:4]] == ["model", "start", "hold", "ready"]
    assert node.get("explain/alias3")["events"] == by_ref
    assert node.events(subject="alias3") == by_ref
    assert node.admin.get("/helios/v1/explain/alias99").status_code == 404


def test_the_feed_has_every_event_once_and_in_order(node: Daemon):
    last = node.events()[-1]["id"]
    path = f"/helios/v1/events?follow=1&snapshots=1&after={last}"
    with node.admin.stream("GET", path) as feed:
        lines = feed.iter_lines()
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(lambda: [chat(node.openai(), ref) for ref in MODELS[:4]])
            read = frames(lines)
            seen, snapshots = [], []
            while [event["kind"] for event in seen].count("released") < 4:
                event, data = next(read)
                (snapshots if event == "snapshot" else seen).append(data)
            asked.result()
    assert [event["id"] for event in seen] == list(range(last + 1, last + 1 + len(seen)))
    assert seen == node.events(after=last)[: len(seen)]
    assert snapshots[0]["node"]["state"] == "running" and len(snapshots[0]["devices"]) == 8


def frames(lines: Iterator[str]) -> Iterator[tuple[str, dict]]:
    event = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            yield event, json.loads(value)


def test_metrics_are_what_prometheus_reads(node: Daemon):
    chat(node.openai(), MODELS[0])
    with pytest.raises(openai.NotFoundError):
        chat(node.openai(), "no/such")
    families = {family.name: family for family in text_string_to_metric_families(httpx.get(f"{node.url}/metrics").text)}
    named = [name for name in families if not name.startswith(("helios_", "process_", "vllm:"))]
    assert named == []
    for name, family in families.items():
        assert family.documentation and family.type != "unknown", name
        unit = name.rpartition("_")[2]
        assert unit not in ("ms", "gib", "mb", "percent"), name
    chats = {
        (sample.labels["status"], sample.labels["code"]): sample.value
        for sample in families["helios_requests"].samples
        if sample.labels["route"] == "/v1/chat/completions"
    }
    assert chats == {("200", ""): 1, ("404", "model_not_found"): 1}
    promised = {
        sample.labels["device"]: sample.value
        for sample in families["helios_device_promised_bytes"].samples
        if sample.labels["part"] == "kv_cache"
    }
    assert sorted(promised.values()) == [0] * 7 + [4 << 30]
    assert families["helios_replica_starts"].samples[0].labels == {"model": MODELS[0]}


def test_sighup_takes_over_what_can_be_and_refuses_what_is_wrong(node: Daemon):
    chat(node.openai(), MODELS[0])
    node.configure(SETTINGS + tables() + '[log]\nlevel = "debug"\n[api]\nmax_body_bytes = "1KiB"\n')
    node.process.send_signal(signal.SIGHUP)
    node.until(lambda: 'msg="configuration reloaded"' in node.log(), 10, "nothing was reloaded")
    (line,) = [line for line in node.log().splitlines() if 'msg="configuration reloaded"' in line]
    assert "changed=log.level" in line and "needs_restart=api.max_body_bytes" in line

    node.expected.append("configuration not reloaded")
    node.configure(SETTINGS + tables() + "[drain]\npatience = 3\n")
    node.process.send_signal(signal.SIGHUP)
    node.until(lambda: 'msg="configuration not reloaded"' in node.log(), 10, "the fault was not told")
    assert "patience" in node.log().rpartition("configuration not reloaded")[2]

    short = SETTINGS + tables().replace('[models."test/m1"]\n', '[models."test/m1"]\nkeep_alive_s = 0.1\n')
    node.configure(short)
    node.process.send_signal(signal.SIGHUP)
    node.until(lambda: node.log().count('msg="configuration reloaded"') == 2, 10, "nothing was reloaded")
    chat(node.openai(), MODELS[1])
    node.until(lambda: [r["model"] for r in node.replicas()] == [MODELS[0]], 5, "keep_alive_s was not taken over")


def test_over_tcp_the_admin_paths_need_an_admin_key(node: Daemon):
    def status(path: str, key: str | None = None, header: str = "authorization") -> tuple[int, str]:
        headers = {} if key is None else {header: f"Bearer {key}" if header == "authorization" else key}
        answer = httpx.get(node.url + path, headers=headers)
        return answer.status_code, "" if answer.is_success else answer.json()["error"]["code"]

    admin_paths = ["node", "models", "replicas", "devices", "events", "explain/r1", "logs", "cluster", "doctor", "keys"]
    admin_paths.append("recording")
    for path in admin_paths:
        assert status(f"/helios/v1/{path}") == (401, "missing_api_key"), path
    assert status("/v1/models") == (200, "")  # no key exists yet, and only this machine can connect

    user = node.admin.post("/helios/v1/keys", json={"name": "user"}).json()["secret"]
    admin = node.admin.post("/helios/v1/keys", json={"name": "ops", "admin": True}).json()["secret"]
    assert status("/v1/models") == (401, "missing_api_key")
    assert status("/v1/models", "wrong") == (401, "invalid_api_key")
    assert status("/v1/models", user) == status("/v1/models", user, "x-api-key") == (200, "")
    for path in admin_paths:
        assert status(f"/helios/v1/{path}", user) == (403, "admin_key_needed"), path
    assert status("/helios/v1/node", admin)[0] == 200
    for path in ("/healthz", "/readyz", "/metrics"):
        assert status(path) == (200, ""), path
    with pytest.raises(openai.AuthenticationError):
        node.openai().models.list()
    assert chat(node.openai(user), MODELS[0])

    assert user not in node.log() and admin not in node.log()
    assert node.admin.delete("/helios/v1/keys/user").is_success
    assert status("/v1/models", user) == (401, "invalid_api_key")


def test_a_model_that_can_never_fit_is_refused_with_the_arithmetic_and_at_once(small_models: Path):
    config = SETTINGS.replace("4GiB", "9GiB") + tables()
    with heliosd(fleet=FLEET, config=config, stock=small_models) as daemon:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            chat(daemon.openai(), MODELS[0])
        assert caught.value.code == "model_cannot_fit"
        assert "9.0 GiB KV cache" in caught.value.message and "offers 7.8 GiB" in caught.value.message
        assert daemon.get("estimate", model=MODELS[0])["verdict"] == "never_fits"


def test_an_engine_that_dies_or_does_not_start_says_why(small_models: Path):
    broken = tables(m0=', dies_of = "poison"', m1=', refuses = "no such kernel"')
    with heliosd(fleet=FLEET, config=SETTINGS + broken, stock=small_models) as daemon:
        client = daemon.openai()
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model=MODELS[0], messages=[{"role": "user", "content": "poison"}])
        assert caught.value.status_code == 502 and caught.value.code == "engine_failed"
        assert "poison" in caught.value.body["cause"]
        assert chat(client, MODELS[0]), "a fresh engine answers"
        with pytest.raises(openai.InternalServerError) as caught:
            chat(client, MODELS[1])
        assert caught.value.status_code == 502 and "no such kernel" in caught.value.body["cause"]
        assert int(caught.value.response.headers["retry-after"]) >= 1
        # The request is asked once more, and the start is tried on a second device.
        daemon.until(lambda: daemon.metric("helios_replica_failures_total") == 4, 10, "not all failures were counted")
        assert daemon.metric("helios_retries_total") == 1
        assert len([event for event in daemon.events() if event["kind"] == "exited"]) == 4


def test_a_model_in_stages_is_placed_served_and_explained(small_models: Path):
    """One as it was configured, one because its two heads do not divide over four devices."""
    sizes = {"tensor_parallel = 2\npipeline_parallel = 2": "test/asked", "tensor_parallel = 4": "test/odd"}
    staged = "".join(f'[models."{ref}"]\n{own}\nengine_args = {{load_s = 0.05}}\n' for own, ref in sizes.items())
    with prepared(fleet=FLEET, config=SETTINGS.replace("4GiB", "1GiB") + staged, stock=small_models) as daemon:
        daemon.start()
        for seed, ref in enumerate(sizes.values()):
            files = model_files(seed=seed) | {"config.json": config(model_type="llama", intermediate_size=128)}
            daemon.bring(write_folder(daemon.folder / f"m{seed}", files), ref, f"other{seed}")
        assert chat(daemon.openai(), "test/asked") and chat(daemon.openai(), "test/odd")
        assert [len(each["devices"]) for each in daemon.replicas()] == [4, 4]
        estimate = daemon.get("explain/test/asked")["model"]["estimate"]
        assert (estimate["device_count"], estimate["pipeline_parallel"], len(estimate["accounts"])) == (4, 2, 2)
        assert [each["devices"] for each in estimate["accounts"]] == [2, 2]
        starts = {each["model"]: each["message"] for each in daemon.events() if each["kind"] == "start"}
        assert starts["test/asked"].count(" -> ") == 1 and starts["test/asked"].count("NVLink") == 2
        assert "(cannot divide 2 attention heads over 4 tensor ranks)" in starts["test/odd"]
        command = [sys.executable, "-m", "heliosctl", "--socket", str(daemon.socket), "estimate", "test/odd"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        assert "in 2 pipeline stages" in told and "cut into 2 pipeline stages of 2 devices each: cannot divide" in told


def test_draining_finishes_what_runs_and_refuses_what_comes(small_models: Path):
    config = SETTINGS + tables(m0=", tokens_per_s = 20.0").replace("tokens_per_s = 2000.0, tokens", "tokens")
    with heliosd(fleet=FLEET, config=config, stock=small_models) as daemon:
        client = daemon.openai()
        stream = client.chat.completions.create(model=MODELS[0], messages=ASK, max_tokens=40, stream=True)
        words = [next(stream)]
        daemon.terminate()
        daemon.until(lambda: "msg=draining" in daemon.log(), 5, "it did not drain")
        until(lambda: httpx.get(f"{daemon.url}/readyz").status_code == 503, 5, "it is still ready")
        with pytest.raises(openai.InternalServerError) as caught:
            chat(client, MODELS[0])
        assert (caught.value.status_code, caught.value.code) == (503, "draining")
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert httpx.get(f"{daemon.url}/healthz").status_code == 200
        words += stream
        assert len(words) == 41 and words[-1].choices[0].finish_reason == "length"
        daemon.ended_well()


def test_what_was_decided_survives_kill_nine(node: Daemon):
    chat(node.openai(), MODELS[0])
    node.until(lambda: node.events()[-1]["kind"] == "released", 5, "it never ended")
    before = node.events()
    node.kill()
    node.start()
    assert node.events()[: len(before)] == before
    assert len(node.get("models")["models"]) == len(MODELS)
    assert node.replicas() == []
    first = node.get("explain/r1")["events"]
    chat(node.openai(), MODELS[1])
    assert node.get("explain/r1")["events"] == first, "a replica's name was given twice"


def test_what_was_recorded_replays_to_the_same_commands(node: Daemon):
    dice = random.Random(3)
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(lambda ref: chat(node.openai(), ref), [dice.choice(MODELS) for _ in range(100)]))
    node.kill()

    def replayed(*words: str) -> dict:
        command = [sys.executable, "-m", "heliosctl", "--socket", str(node.socket), "replay", "--json", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    killed = replayed(str(node.state / "recording"))
    assert killed["equal_events"] > 150 and killed["equal_commands"] > 100 and killed["segments"] == 2
    node.start()
    chat(node.openai(), MODELS[0])
    both = replayed()
    assert both["segments"] == 3 and both["not_replayed"] == 0
    assert both["equal_events"] > killed["equal_events"]
    assert node.metric("helios_recorded_events_total") > 0


def test_check_says_what_is_wrong_and_where():
    with prepared(fleet=FLEET) as daemon:
        assert ended(daemon, "--check") == 0
        assert "ok: " in daemon.log() and "helios.toml" in daemon.log()
        daemon.configure('[api]\nprot = 3\n[devices]\nhost_memory = "lots"\n')
        assert ended(daemon, "--check") == 78
        assert "api.prot" in daemon.log() and "the nearest is api.port" in daemon.log()
        assert "host_memory" in daemon.log() and str(daemon.config) in daemon.log()
        daemon.configure("")
        assert ended(daemon, "--chekc") == 2
        daemon.fleet.write_text('[[device]]\nname = "g"\ncapacty = "1GiB"\n')
        assert ended(daemon) == 78
        assert "capacty" in daemon.log() and "'capacity'" in daemon.log() and "Traceback" not in daemon.log()
        daemon.fleet.unlink()
        assert ended(daemon) == 78
        assert "no such file" in daemon.log()


def test_a_port_or_a_store_in_use_is_told_in_one_line(node: Daemon):
    with prepared(fleet=FLEET, name="second") as second:
        assert ended(second, "--port", node.url.rpartition(":")[2]) == 78
        assert "Traceback" not in second.log() and node.url.rpartition(":")[2] in second.log()
        assert ended(second, "--state-dir", str(node.state)) == 1
        assert "Traceback" not in second.log() and "cannot" in second.log()
    assert chat(node.openai(), MODELS[0])


def ended(daemon: Daemon, *flags: str) -> int:
    daemon.spawn(*flags)
    return daemon.process.wait(30)
