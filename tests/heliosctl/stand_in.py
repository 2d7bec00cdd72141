"""A small daemon for the clients' tests: serves wire models over a Unix socket, and does as the test tells it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from heliosd.core.units import MiB
from heliosd.wire import (
    AccuracyView,
    AlertRuleView,
    AlertView,
    CacheView,
    CheckView,
    DifferenceView,
    EventView,
    GarbageView,
    KeyView,
    MemberView,
    ModelDetail,
    PlanView,
    ProgressView,
    QueueView,
    RevisionList,
    RolledBack,
    SharedView,
    Snapshot,
    SpeedView,
    StorageView,
    UsageList,
    WarmupView,
)
from tests.heliosctl.samples import ESTIMATE, NODE, TIMELINE, TRACE, device, model, replica
from tests.heliosctl.stand_in_answers import Answering
from tests.heliosctl.stand_in_replies import RESPONSE, Refusal, sse


class StandIn(Answering):
    """Public fields are what it serves; change them, then call `changed()` for those who follow."""

    def __init__(self) -> None:
        super().__init__()
        self.node = NODE
        self.devices = [device()]
        self.replicas = [replica()]
        self.queue: list[QueueView] = []
        self.alerts: list[AlertView] = []
        self.alert_rules: list[AlertRuleView] = []
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
        self.usage = UsageList(
            since="2026-11-01", until="2026-11-26", usage=[], engine_prompt_tokens=0, engine_completion_tokens=0,
            uncertain_s=0.1,
        )  # fmt: skip
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
        self.recording = ""
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
        add("GET", "/helios/v1/usage", self._usage)
        add("GET", "/helios/v1/traces/{id}", self._give(lambda: self.trace))
        add("GET", "/helios/v1/warmups", self._give(lambda: {"warmups": _dump(self.warmups)}))
        add("GET", "/helios/v1/warmups/{key}", self._pack)
        add("POST", "/helios/v1/warmups", self._unpack)
        add("DELETE", "/helios/v1/warmups/{key}", self._give(self.warmups.pop))
        add(
            "GET",
            "/helios/v1/alerts",
            self._give(lambda: {"alerts": _dump(self.alerts), "rules": _dump(self.alert_rules)}),
        )
        add("GET", "/helios/v1/queue", self._give(lambda: {"queue": _dump(self.queue)}))
        add("POST", "/v1/chat/completions", self.chat)
        add("POST", "/v1/completions", self.complete)
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
        return web.json_response(_json(self.find(request.match_info["ref"])))

    def find(self, ref: str) -> ModelDetail:
        for known in self.models:
            if ref in (known.ref, *known.aliases):
                return known
        raise Refusal(404, "model_not_found", f"cannot find the model {ref}; did you mean org/small?")

    async def _remove(self, request: web.Request) -> web.Response:
        known = self.find(request.match_info["ref"])
        self.models.remove(known)
        return web.json_response({"ref": known.ref, "freed_bytes": known.size_bytes})

    async def _alias(self, request: web.Request) -> web.Response:
        known = self.find((await request.json())["ref"])
        return web.json_response({"alias": request.match_info["alias"], "ref": known.ref})

    async def _no_alias(self, request: web.Request) -> web.Response:
        known = self.find(request.match_info["alias"])
        return web.json_response({"alias": request.match_info["alias"], "ref": known.ref})

    async def _add(self, request: web.Request) -> web.StreamResponse:
        async with sse(request) as send:
            for view in self.progress:
                await send("progress", view.model_dump_json())
            if self.add_error:
                await send("error", self.add_error.body)
            elif not self.cut:
                await send("done", self.models[0].model_dump_json())
        return request[RESPONSE]

    async def _load(self, request: web.Request) -> web.StreamResponse:
        if not (await request.json()).get("stream"):
            return web.json_response(_json(self.replicas[0]))
        early = {"state": "starting", "spans": self.timeline.spans[:1], "expected": {"fork": 0.4}, "left_s": 3.0}
        async with sse(request) as send:
            if self.early:
                await send("timeline", self.timeline.model_copy(update=early).model_dump_json())
            await send("timeline", self.timeline.model_dump_json())
            if self.add_error:
                await send("error", self.add_error.body)
            elif not self.cut:
                await send("done", self.replicas[0].model_dump_json())
        return request[RESPONSE]

    async def _pack(self, request: web.Request) -> web.Response:
        return web.Response(body=self.packed, content_type="application/x-tar")

    async def _unpack(self, request: web.Request) -> web.Response:
        self.packed = await request.read()
        return web.json_response(_json(self.warmups[0]))

    async def _compare(self, request: web.Request) -> web.StreamResponse:
        async with sse(request) as send:
            for view in self.progress:
                await send("progress", view.model_dump_json())
            if not self.cut:
                await send("done", self.difference.model_dump_json())
        return request[RESPONSE]

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
            async with sse(request) as send:
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

    async def _usage(self, request: web.Request) -> web.Response:
        if (wanted := request.query.get("format")) is not None:
            return web.Response(text=f"a file\nas {wanted}\n", content_type="text/csv")
        return web.json_response(_json(self.usage))

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
