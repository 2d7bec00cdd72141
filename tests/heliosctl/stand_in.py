"""A small daemon for the clients' tests: serves wire models over a Unix socket, and does as the test tells it."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from heliosd import __version__
from heliosd.core.units import GiB, MiB
from heliosd.wire import (
    AccuracyView,
    CacheView,
    CheckView,
    DeviceView,
    DifferenceView,
    EngineKindView,
    ErrorBody,
    ErrorDetail,
    EstimateView,
    EventView,
    FileView,
    FootprintView,
    GarbageView,
    KeyView,
    MemberView,
    ModelDetail,
    NodeView,
    PlanView,
    ProgressView,
    QueueView,
    ReplicaView,
    RevisionList,
    RolledBack,
    SharedView,
    Snapshot,
    SpanView,
    SpeedView,
    StorageView,
    TimelineView,
    TraceSpan,
    TraceView,
    WarmupView,
)

_RESPONSE = web.RequestKey("response", web.StreamResponse)
PREDICTED = FootprintView(
    weights_bytes=256 * MiB, kv_cache_bytes=1 * GiB, overhead_bytes=320 * MiB, total_bytes=1600 * MiB
)
MEASURED = FootprintView(
    weights_bytes=256 * MiB, kv_cache_bytes=1 * GiB, overhead_bytes=300 * MiB, total_bytes=1580 * MiB
)
NODE = NodeView(
    name="node-a",
    version=__version__,
    state="running",
    started_at=1_000_000.0,
    uptime_s=12.0,
    pid=4711,
    engines=[EngineKindView(kind="vllm", version="0.32.0", state="warm")],
    config_files=[],
    state_dir="/state",
)


def device(name: str = "gpu0", **changes: Any) -> DeviceView:
    values: dict[str, Any] = {
        "id": name,
        "kind": "simulated",
        "name": "H100 80GB",
        "capacity_bytes": 8 * GiB,
        "foreign_bytes": 512 * MiB,
        "safety_bytes": 128 * MiB,
        "promised_bytes": 1600 * MiB,
        "measured_bytes": 1580 * MiB,
        "free_bytes": (8 * 1024 - 512 - 128 - 1600) * MiB,
        "weights_bytes": 256 * MiB,
        "kv_cache_bytes": 1 * GiB,
        "used_bytes": 2092 * MiB,
        "utilization_ratio": 0.63,
        "temperature_c": 54.0,
    }
    return DeviceView(**(values | changes))


def replica(name: str = "r1", **changes: Any) -> ReplicaView:
    values: dict[str, Any] = {
        "id": name,
        "model": "org/small",
        "revision": "ab" * 32,
        "state": "ready",
        "devices": ["gpu0"],
        "leases": 0,
        "predicted": PREDICTED,
        "measured": MEASURED,
        "phases": {"fork": 0.04, "load": 1.1, "kv cache": 0.36},
        "started_at": 1_000_000.0,
        "idle_s": 3.0,
        "keep_alive_s": 300.0,
        "max_model_len": 8192,
        "tasks": ["generate"],
        "pids": [4712],
    }
    return ReplicaView(**(values | changes))


def model(ref: str = "org/small", **changes: Any) -> ModelDetail:
    values: dict[str, Any] = {
        "ref": ref,
        "revision": "ab" * 32,
        "size_bytes": 270 * MiB,
        "source": "gguf: /models/small.gguf",
        "created_at": 1_000_000.0,
        "aliases": ["small"],
        "architecture": "LlamaForCausalLM",
        "parameters": 134_515_008,
        "max_model_len": 8192,
        "files": [FileView(path="model.safetensors", digest="cd" * 32, size_bytes=269 * MiB)],
        "dtype": "bfloat16",
        "kv_bytes_per_token": 23_040,
    }
    return ModelDetail(**(values | changes))


ESTIMATE = EstimateView(
    model="org/small",
    per_device=PREDICTED,
    device_count=1,
    max_model_len=8192,
    kv_tokens=46_603,
    kv_bytes_per_token=23_040,
    verdict="fits",
    reason="needs 1.6 GiB, 5.8 GiB free on gpu0",
    notes=["the KV cache is what is left, up to 1 GiB"],
)


TRACE = TraceView(
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    began_at=1_000_000.0,
    total_s=4.0,
    unexplained_s=1.0,
    left_out=3,
    spans=[
        TraceSpan(id="a1", parent="ff", name="POST /v1/chat/completions", began_s=0.0, ended_s=4.0),
        TraceSpan(
            id="a2", parent="a1", name="wait", began_s=0.0, ended_s=2.0, attributes={"helios.reason": "r1 is busy"}
        ),
        TraceSpan(
            id="a3",
            parent="a1",
            name="start",
            began_s=1.0,
            error="Traceback:\nno such kernel",
            attributes={
                "helios.replica": "r2",
                "helios.predicted_bytes": MiB,
                "helios.evicted": ["stop r1", "stop r3"],
            },
            links=["5bf92f3577b34da6a3ce929d0e0e4736"],
        ),
        TraceSpan(id="a4", parent="a3", name="fork", began_s=1.0, ended_s=1.5),
    ],
)
TIMELINE = TimelineView(
    replica="r1",
    model="org/small",
    state="ready",
    began_at=1_000_000.0,
    total_s=4.0,
    other_s=1.0,
    spans=[
        SpanView(phase="fork", began_s=0.0, ended_s=0.5),
        SpanView(phase="warm_up", began_s=1.5, ended_s=4.0),
        SpanView(phase="capture", began_s=2.0, ended_s=3.0, within="warm_up"),
    ],
)


class Refusal(Exception):
    """Makes a route answer with an ErrorBody."""

    def __init__(self, status: int, code: str, message: str, cause: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        detail = ErrorDetail(message=message, type="invalid_request_error", code=code, cause=cause)
        self.body = ErrorBody(error=detail).model_dump_json()


class StandIn:
    """Public fields are what it serves; change them, then call `changed()` for those who follow."""

    def __init__(self) -> None:
        self.node = NODE
        self.devices = [device()]
        self.replicas = [replica()]
        self.queue: list[QueueView] = []
        self.models = [model()]
        self.events: list[EventView] = []
        self.members = [MemberView(name="node-a", state="self", address="127.0.0.1:7946", models=["org/small"])]
        self.storage = StorageView(
            file="model.safetensors of smol",
            size_bytes=270 * MiB,
            speeds=[
                SpeedView(method="read", cold_bytes_per_s=2e9, warm_bytes_per_s=15e9),
                SpeedView(method="helios", cold_bytes_per_s=None, warm_bytes_per_s=2e9, note="a replica has it mapped"),
            ],
            load_format="helios",
        )
        self.checks = [CheckView(name="store", ok=True, message="1 model, 270.0 MiB")]
        self.keys: dict[str, KeyView] = {}
        self.estimate = ESTIMATE
        self.timeline = TIMELINE
        self.trace = TRACE
        self.early = True
        """A load is a start, which is told of before it is over."""
        self.warmups = [
            WarmupView(key="3fa9" * 8, facts={"revision": "ab" * 32, "engine": "0.32.0"}, files=2, size_bytes=MiB)
        ]
        self.packed = b"as packed"
        self.plan = PlanView(placed=[], left=[], devices=[], committed_ratio=0.0)
        self.accuracy = AccuracyView(terms=[])
        self.cache = CacheView(models=[], logical_bytes=0, physical_bytes=0, ratio=1.0)
        self.shared = SharedView(files=0, logical_bytes=0, freed_bytes=0, in_use=0)
        self.progress = [ProgressView(phase="fetch", item="model.safetensors", done_bytes=MiB, total_bytes=4 * MiB)]
        self.add_error: Refusal | None = None
        self.revisions = RevisionList(model="org/small", keep=2, revisions=[])
        self.rolled_back = RolledBack(model="org/small", before="ab" * 32, revision="cd" * 32)
        self.difference = DifferenceView(
            before="org/small@cdcdcdcdcdcd", after="org/small@abababababab", files=[], tensors=[], keys=[],
            equal_files=3, equal_tensors=270,
        )  # fmt: skip
        self.garbage = GarbageView(dry_run=False, goes=[], stays=[], freed_bytes=0)
        self.words = ["The capital", " of France", " is Paris."]
        self.comments: list[str] = []
        self.chats = True
        self.recording = ""
        self.start_s = 0.0
        """How long it takes to find out that a model cannot chat."""
        self.endless = False
        """Give the words and then nothing more, until the client goes."""
        self.cut = False
        """End a stream without its last line."""
        self.left = threading.Event()
        """Set when a client has gone in the middle of an endless answer."""
        self.refusals: dict[str, Refusal] = {}
        """By `METHOD path`."""
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        """Method, path, query and body of each request."""
        self._followers: set[asyncio.Queue[EventView | None]] = set()

    def changed(self) -> None:
        for follower in self._followers:
            follower.put_nowait(None)

    def note(self, kind: str, message: str, **subjects: Any) -> None:
        event = EventView(id=len(self.events) + 1, at=1_000_000.0, kind=kind, message=message, **subjects)
        self.events.append(event)
        for follower in self._followers:
            follower.put_nowait(event)

    # ---- routes ------------------------------------------------------------

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._record])
        add = app.router.add_route
        add("GET", "/helios/v1/node", self._give(lambda: self.node))
        add("GET", "/helios/v1/models", self._give(lambda: {"models": _dump(self.models)}))
        add("POST", "/helios/v1/models", self._add)
        add("GET", "/helios/v1/models/{ref:.+}/revisions", self._give(lambda: self.revisions))
        add("POST", "/helios/v1/models/{ref:.+}/rollback", self._give(lambda: self.rolled_back))
        add("POST", "/helios/v1/store/diff", self._compare)
        add("POST", "/helios/v1/store/gc", self._give(lambda: self.garbage))
        add("GET", "/helios/v1/models/{ref:.+}", self._model)
        add("DELETE", "/helios/v1/models/{ref:.+}", self._remove)
        add("PUT", "/helios/v1/aliases/{alias:.+}", self._alias)
        add("DELETE", "/helios/v1/aliases/{alias:.+}", self._no_alias)
        add("GET", "/helios/v1/replicas", self._give(self._running))
        add("POST", "/helios/v1/replicas", self._load)
        add("GET", "/helios/v1/replicas/{subject:.+}/timeline", self._give(lambda: self.timeline))
        add("DELETE", "/helios/v1/replicas/{subject:.+}", self._stop)
        add("GET", "/helios/v1/cache", self._give(lambda: self.cache))
        add("POST", "/helios/v1/cache/share", self._give(lambda: self.shared))
        add("GET", "/helios/v1/devices", self._give(lambda: {"devices": _dump(self.devices)}))
        add("POST", "/helios/v1/estimate", self._give(lambda: self.estimate))
        add("POST", "/helios/v1/plan", self._give(lambda: self.plan))
        add("GET", "/helios/v1/estimate/accuracy", self._give(lambda: self.accuracy))
        add("GET", "/helios/v1/events", self._events)
        add("GET", "/helios/v1/explain/{subject:.+}", self._explain)
        add("GET", "/helios/v1/recording", self._recording)
        add("GET", "/helios/v1/logs", self._logs)
        add("GET", "/helios/v1/cluster", self._give(lambda: {"members": _dump(self.members)}))
        add("GET", "/helios/v1/doctor", self._give(lambda: {"checks": _dump(self.checks)}))
        add("POST", "/helios/v1/doctor/storage", self._give(lambda: self.storage))
        add("GET", "/helios/v1/keys", self._give(lambda: {"keys": _dump(self.keys.values())}))
        add("POST", "/helios/v1/keys", self._key)
        add("PATCH", "/helios/v1/keys/{name}", self._change_key)
        add("DELETE", "/helios/v1/keys/{name}", self._no_key)
        add("GET", "/helios/v1/traces/{id}", self._give(lambda: self.trace))
        add("GET", "/helios/v1/warmups", self._give(lambda: {"warmups": _dump(self.warmups)}))
        add("GET", "/helios/v1/warmups/{key}", self._pack)
        add("POST", "/helios/v1/warmups", self._unpack)
        add("DELETE", "/helios/v1/warmups/{key}", self._give(self.warmups.pop))
        add("GET", "/helios/v1/queue", self._give(lambda: {"queue": _dump(self.queue)}))
        add("POST", "/v1/chat/completions", self._chat)
        add("POST", "/v1/completions", self._complete)
        return app

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        as_json = request.can_read_body and request.content_type == "application/json"
        body = await request.json() if as_json else None
        self.asked.append((request.method, request.path, dict(request.query), body))
        try:
            if refusal := self.refusals.get(f"{request.method} {request.path}"):
                raise refusal
            return await handler(request)
        except Refusal as refusal:
            return web.Response(status=refusal.status, text=refusal.body, content_type="application/json")

    def _give(self, body: Callable[[], Any]) -> Any:
        async def handler(request: web.Request) -> web.Response:
            return web.json_response(_json(body()))

        return handler

    def _running(self) -> dict[str, Any]:
        return {"replicas": _dump(self.replicas), "queue": _dump(self.queue)}

    async def _model(self, request: web.Request) -> web.Response:
        return web.json_response(_json(self._find(request.match_info["ref"])))

    def _find(self, ref: str) -> ModelDetail:
        for known in self.models:
            if ref in (known.ref, *known.aliases):
                return known
        raise Refusal(404, "model_not_found", f"cannot find the model {ref}; did you mean org/small?")

    async def _remove(self, request: web.Request) -> web.Response:
        known = self._find(request.match_info["ref"])
        self.models.remove(known)
        return web.json_response({"ref": known.ref, "freed_bytes": known.size_bytes})

    async def _alias(self, request: web.Request) -> web.Response:
        known = self._find((await request.json())["ref"])
        return web.json_response({"alias": request.match_info["alias"], "ref": known.ref})

    async def _no_alias(self, request: web.Request) -> web.Response:
        known = self._find(request.match_info["alias"])
        return web.json_response({"alias": request.match_info["alias"], "ref": known.ref})

    async def _add(self, request: web.Request) -> web.StreamResponse:
        async with _sse(request) as send:
            for view in self.progress:
                await send("progress", view.model_dump_json())
            if self.add_error:
                await send("error", self.add_error.body)
            elif not self.cut:
                await send("done", self.models[0].model_dump_json())
        return request[_RESPONSE]

    async def _load(self, request: web.Request) -> web.StreamResponse:
        if not (await request.json()).get("stream"):
            return web.json_response(_json(self.replicas[0]))
        early = {"state": "starting", "spans": self.timeline.spans[:1], "expected": {"fork": 0.4}, "left_s": 3.0}
        async with _sse(request) as send:
            if self.early:
                await send("timeline", self.timeline.model_copy(update=early).model_dump_json())
            await send("timeline", self.timeline.model_dump_json())
            if self.add_error:
                await send("error", self.add_error.body)
            elif not self.cut:
                await send("done", self.replicas[0].model_dump_json())
        return request[_RESPONSE]

    async def _pack(self, request: web.Request) -> web.Response:
        return web.Response(body=self.packed, content_type="application/x-tar")

    async def _unpack(self, request: web.Request) -> web.Response:
        self.packed = await request.read()
        return web.json_response(_json(self.warmups[0]))

    async def _compare(self, request: web.Request) -> web.StreamResponse:
        async with _sse(request) as send:
            for view in self.progress:
                await send("progress", view.model_dump_json())
            if not self.cut:
                await send("done", self.difference.model_dump_json())
        return request[_RESPONSE]

    async def _recording(self, request: web.Request) -> web.Response:
        return web.Response(text=self.recording, content_type="application/x-ndjson")

    async def _stop(self, request: web.Request) -> web.Response:
        subject = request.match_info["subject"]
        gone = [r.id for r in self.replicas if subject in (r.id, r.model)]
        if not gone:
            raise Refusal(404, "not_found", f"cannot stop {subject}: there is no such replica")
        self.replicas = [r for r in self.replicas if r.id not in gone]
        self.changed()
        return web.json_response({"stopped": gone})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        after, limit = int(request.query.get("after", 0)), int(request.query.get("limit", 500))
        subject = request.query.get("subject")
        past = [e for e in self.events if e.id > after and subject in (None, e.ticket, e.model, e.replica)]
        past = past[:limit] if after else past[-limit:]
        if request.query.get("follow") != "1":
            return web.json_response({"events": _dump(past)})
        queue: asyncio.Queue[EventView | None] = asyncio.Queue()
        self._followers.add(queue)
        try:
            async with _sse(request) as send:
                if snapshots := request.query.get("snapshots") == "1":
                    await send("snapshot", self.snapshot().model_dump_json())
                for event in past:
                    await send("journal", event.model_dump_json(), str(event.id))
                while True:
                    news = await queue.get()
                    if news is not None:
                        await send("journal", news.model_dump_json(), str(news.id))
                    elif snapshots:
                        await send("snapshot", self.snapshot().model_dump_json())
        finally:
            self._followers.discard(queue)

    def snapshot(self) -> Snapshot:
        return Snapshot(node=self.node, devices=self.devices, replicas=self.replicas, queue=self.queue)

    async def _explain(self, request: web.Request) -> web.Response:
        subject = request.match_info["subject"]
        told = [e for e in self.events if subject in (e.ticket, e.model, e.replica)]
        return web.json_response({"subject": subject, "events": _dump(told)})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        whose = request.query.get("replica") or request.query.get("model") or "daemon"
        return web.Response(text="".join(f"{whose} line {n}\n" for n in range(int(request.query["lines"]))))

    async def _key(self, request: web.Request) -> web.Response:
        body = await request.json()
        key = KeyView(id="k1", created_at=1_000_000.0, **body)
        self.keys[key.name] = key
        return web.json_response(_json(key.model_copy(update={"secret": "helios-secret"})))

    async def _change_key(self, request: web.Request) -> web.Response:
        key = self.keys.get(request.match_info["name"])
        if key is None:
            raise Refusal(404, "key_not_found", "cannot change that key: it is not known")
        self.keys[key.name] = key.model_copy(update=await request.json())
        return web.json_response(_json(self.keys[key.name]))

    async def _no_key(self, request: web.Request) -> web.Response:
        if self.keys.pop(request.match_info["name"], None) is None:
            raise Refusal(404, "not_found", "cannot find that key")
        return web.json_response({})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self._find((await request.json())["model"])
        if not self.chats:
            await asyncio.sleep(self.start_s)
            raise Refusal(400, "bad_request", "As of v4.44 you must provide a chat template", "ValueError")
        return await self._stream(request, lambda word: {"delta": {"content": word}})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, lambda word: {"text": word})

    async def _stream(self, request: web.Request, choice: Callable[[str], dict[str, Any]]) -> web.StreamResponse:
        async with _sse(request) as send:
            for comment in self.comments:
                await request[_RESPONSE].write(f": {comment}\n\n".encode())
            for word in self.words:
                await send(None, json.dumps({"choices": [choice(word)]}))
            if self.endless:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.left.set()
            if self.cut:
                return request[_RESPONSE]
            await send(None, json.dumps({"choices": [choice("") | {"finish_reason": "stop"}]}))
            await send(None, json.dumps({"choices": [], "usage": {"completion_tokens": 7}}))
            await send(None, "[DONE]")
        return request[_RESPONSE]


@asynccontextmanager
async def _sse(request: web.Request) -> AsyncIterator[Callable[..., Any]]:
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-request-id": "t-1"})
    request[_RESPONSE] = response
    await response.prepare(request)

    async def send(kind: str | None, data: str, number: str | None = None) -> None:
        lines = [f"id: {number}"] if number else []
        lines += [f"event: {kind}"] if kind else []
        await response.write("\n".join([*lines, f"data: {data}", "", ""]).encode())

    yield send


def _json(body: Any) -> Any:
    return body if isinstance(body, dict) else body.model_dump(mode="json")


def _dump(views: Any) -> list[Any]:
    return [view.model_dump(mode="json") for view in views]


@asynccontextmanager
async def serving(stand_in: StandIn, path: Path) -> AsyncIterator[StandIn]:
    """Serve on the socket at `path` while the block runs; leaving it cuts every connection, like a dead daemon."""
    # Not zero: aiohttp takes that for "wait for ever".
    runner = web.AppRunner(stand_in.application(), handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield stand_in
    finally:
        await runner.cleanup()  # which also takes the socket away


@contextmanager
def serving_from_a_thread(stand_in: StandIn, path: Path) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Serve beside a test that blocks. Gives a function that runs another one on the server's loop."""
    started = threading.Event()
    loop = asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        async with serving(stand_in, path):
            started.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield lambda action: (loop.call_soon_threadsafe(action), None)[1]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()
