"""A node in memory for the API to stand on: real keys, database, metrics and sockets; models and engines as told."""

import asyncio
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp

from heliosd.api.alerts import alerts_quiet
from heliosd.api.app import build_app
from heliosd.api.listen import Listening, listen
from heliosd.api.parts import History, Identity, Parts, Progress
from heliosd.api.scrape import scrape_of
from heliosd.cluster.member import Member, MemberState
from heliosd.core.claim import Claim
from heliosd.core.hardware import Device, DeviceKind, DeviceReading
from heliosd.core.lifecycle import State
from heliosd.core.manifest import ManifestFile, manifest_of
from heliosd.core.messages import Footprint, Hold, Priority
from heliosd.core.names import DeviceId, Digest, ModelRef, PeerName, ReplicaId, Ticket
from heliosd.core.profile import ModelProfile
from heliosd.core.snapshot import DeviceAccount, ReplicaStatus, Snapshot, Waiting
from heliosd.engines.engine import Reply, Request
from heliosd.engines.warmups import Warmups
from heliosd.errors import EngineFailed, HeliosError, NotFound
from heliosd.estimation.accuracy import Accuracy
from heliosd.estimation.known import Known
from heliosd.explain import Facts
from heliosd.lease import Judgement, Lease, LocalLease, PeerLease, StartSoFar
from heliosd.state.advice import PutOff
from heliosd.state.database import Database
from heliosd.state.hours import Hours
from heliosd.state.journal import Journal
from heliosd.state.kept_answers import KeptAnswers
from heliosd.state.keys import Keys
from heliosd.state.usage import UsageTable
from heliosd.store.sharing import Shared
from heliosd.store.sources.hub_headers import Glance
from heliosd.store.store import Store
from heliosd.store.stored import Adapter, Addition, PastRevision, StoredModel
from heliosd.store.usage import Holdings, Usage, usage_of
from heliosd.telemetry.alert_watch import AlertWatch
from heliosd.telemetry.metrics import Metrics
from heliosd.telemetry.survey import Survey
from heliosd.telemetry.traces import Traces

MIB = 1024**2
FOOTPRINT = Footprint(256 * MIB, 1024 * MIB, 300 * MIB)
PROFILE = ModelProfile("LlamaForCausalLM", 256 * MIB, 135_000_000, "bfloat16", 30, 3, 64, 576, 49152, 8192)

Answer = Callable[[Request, Reply], Awaitable[None]]


def stored(name: str, *aliases: str, adapter: Adapter | None = None) -> StoredModel:
    manifest = manifest_of([ManifestFile("config.json", Digest("a" * 64), 700)])
    profile = PROFILE if adapter is None else replace(PROFILE, architecture=None, max_model_len=None)
    return StoredModel(
        ModelRef(name), manifest.digest, manifest, f"hub {name}", 1_700_000_000.0, aliases, profile, adapter=adapter
    )


async def say_hello(request: Request, reply: Reply) -> None:
    """Answer a chat as vLLM does, streamed or not."""
    body = json.loads(request.body)
    if not body.get("stream"):
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "hello there"},
            "finish_reason": "stop",
        }
        whole = {"id": "c1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        data = json.dumps(whole).encode()
        await reply.start(200, [("content-type", "application/json"), ("content-length", str(len(data)))])
        await reply.write(data)
        return
    await reply.start(200, [("content-type", "text/event-stream; charset=utf-8")])
    for word in ("hello", " there"):
        await reply.write(chunk(body["model"], word))
    await reply.write(b"data: [DONE]\n\n")


def chunk(model: str, word: str) -> bytes:
    choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
    part = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
    return b"data: " + json.dumps(part).encode() + b"\n\n"


@dataclass
class MemoryEngine:
    """Answers with the function the test sets."""

    answer: Answer = say_hello
    seen: list[Request] = field(default_factory=list)
    text: str = ""
    state: State = State.READY

    pids = frozenset({4711})
    footprint = FOOTPRINT
    phases: Mapping[str, float] = field(default_factory=lambda: {"fork": 0.1, "load": 1.2})
    max_model_len = 8192
    tasks = ("generate",)

    @property
    def frontend(self) -> "MemoryEngine":
        return self

    async def handle(self, request: Request, reply: Reply) -> None:
        self.seen.append(request)
        await self.answer(request, reply)

    def metrics(self) -> str:
        return self.text

    async def wait_dead(self) -> str:
        return str(await asyncio.Event().wait())

    async def stop(self) -> None:
        return None


class MemoryWanted:
    """Pins, by model."""

    def __init__(self) -> None:
        self.pins: dict[str, int] = {}

    async def pinned(self) -> dict[str, int]:
        return dict(self.pins)

    async def pinned_at(self) -> dict[str, float]:
        return dict.fromkeys(self.pins, 1_700_000_000.0)

    async def pin(self, ref: ModelRef, replicas: int) -> None:
        self.pins[str(ref)] = replicas

    async def unpin(self, ref: ModelRef) -> None:
        del self.pins[str(ref)]


class MemoryNode:
    """Knows replicas by model; everything else is refused with the error the test sets."""

    def __init__(self) -> None:
        self.accepting = True
        self.wanted = MemoryWanted()
        self.starts: dict[str, StartSoFar] = {}
        self.answers: list[tuple[str, float]] = []
        """Replicas that answered, with the seconds to the first byte."""
        self.draining = False
        self.ending = 0
        """So many leases find that their engine has just ended."""
        self.engines: dict[str, MemoryEngine] = {"tiny": MemoryEngine()}
        self.aliases: dict[str, str] = {}
        self.at_peers: dict[str, PeerName] = {}
        self.refusal: HeliosError | None = None
        self.leases: list[tuple[Ticket, ModelRef, bool]] = []
        self.claims: list[tuple[Claim, float | None]] = []
        """Of each lease, with its deadline."""
        self.held: asyncio.Queue[Hold | None] | None = None
        """While there is one a lease is not granted until None comes; a `Hold` is told."""
        self.asked = asyncio.Event()
        self.released: list[Ticket] = []
        self.release = asyncio.Event()
        self.waiting: tuple[Waiting, ...] = ()
        self.logs = Path("/nonexistent")
        self.version = 1
        self.devices = (Device(DeviceId("g0"), DeviceKind.SIMULATED, "H100", 80 * 1024 * MIB),)
        self.known: dict[str, Facts] = {}
        self.judgement: Judgement | None = None
        """Instead of the usual one."""
        self.prospects: list[StoredModel] = []
        """Models that were judged without being in the store."""
        self._moved = asyncio.Condition()
        self._numbers = itertools.count(1)

    def new_ticket(self) -> Ticket:
        return Ticket(f"t-{next(self._numbers)}")

    @asynccontextmanager
    async def lease(
        self,
        ticket: Ticket,
        ref: ModelRef,
        *,
        claim: Claim | None = None,
        deadline_s: float | None = None,
        forwarded: bool = False,
        told: Callable[[Hold], None] | None = None,
    ) -> AsyncIterator[Lease]:
        if self.refusal is not None and self.held is None:
            raise self.refusal
        self.leases.append((ticket, ref, forwarded))
        self.claims.append((claim or Claim(), deadline_s))
        self.asked.set()
        try:
            while self.held is not None and (hold := await self.held.get()) is not None:
                if told is not None:
                    told(hold)
            if self.refusal is not None:
                raise self.refusal
            name = self.aliases.get(str(ref), str(ref))
            if name in self.at_peers:
                terms = (claim or Claim()).terms(Priority.NORMAL)
                yield PeerLease(ticket, name, self.at_peers[name], terms, deadline_s)
            elif self.ending:
                self.ending -= 1
                raise EngineFailed(f"cannot use r-{name} of {name}: it has just ended", replica=f"r-{name}")
            elif name in self.engines:
                yield LocalLease(ticket, name, ReplicaId(f"r-{name}"), self.engines[name])
            else:
                raise NotFound(f"cannot serve {name}: no such model here", code="model_not_found")
        finally:
            self.released.append(ticket)
            self.release.set()

    async def load(self, ref: ModelRef) -> ReplicaId:
        if str(ref) not in self.engines:
            raise NotFound(f"cannot load {ref}: no such model here", code="model_not_found")
        return ReplicaId(f"r-{ref}")

    async def stop(self, subject: str) -> tuple[ReplicaId, ...]:
        name = subject.removeprefix("r-")
        if self.engines.pop(name, None) is None:
            raise NotFound(f"cannot stop {subject}: nothing of that name runs")
        return (ReplicaId(f"r-{name}"),)

    async def judge(
        self,
        ref: ModelRef,
        *,
        kv_cache_bytes: int | None = None,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
    ) -> Judgement:
        if str(ref) not in self.engines:
            raise NotFound(f"cannot estimate {ref}: no such model here", code="model_not_found")
        if self.judgement is not None:
            return self.judgement
        footprint = Footprint(256 * MIB, kv_cache_bytes or 1024 * MIB, 300 * MIB)
        return Judgement(str(ref), footprint, 1, max_model_len or 8192, 46_000, 23_040, "fits", "31 GiB are free", ())

    async def judge_unstored(self, prospect: StoredModel, known: Known) -> Judgement:
        self.prospects.append(prospect)
        if self.judgement is not None:
            return self.judgement
        return Judgement(str(prospect.ref), FOOTPRINT, 1, 8192, 46_000, 23_040, "fits", "31 GiB are free", ())

    def facts(self, subject: str) -> Facts:
        return self.known.get(subject, Facts(None, None, None))

    def snapshot(self) -> Snapshot:
        ids = tuple(device.id for device in self.devices)
        replicas = tuple(
            ReplicaStatus(
                ReplicaId(f"r-{name}"), name, "b" * 64, engine.state, ids, frozenset(), FOOTPRINT, FOOTPRINT,
                90.0, 95.0, float("inf"),
            )
            for name, engine in self.engines.items()
        )  # fmt: skip
        accounts = tuple(_account(device) for device in self.devices)
        return Snapshot(100.0, accounts, replicas, self.waiting, self.draining)

    def engine(self, replica: ReplicaId) -> MemoryEngine | None:
        return self.engines.get(replica.removeprefix("r-"))

    def start_so_far(self, replica: ReplicaId) -> StartSoFar | None:
        return self.starts.get(replica)

    def answered(self, replica: ReplicaId, asked_at: float, first_byte_at: float) -> None:
        self.answers.append((replica, first_byte_at - asked_at))

    def log_file(self, replica: ReplicaId) -> Path:
        return self.logs / f"{replica}.log"

    async def changed(self, since: int) -> int:
        async with self._moved:
            await self._moved.wait_for(lambda: self.version != since)
            return self.version

    async def move(self) -> None:
        async with self._moved:
            self.version += 1
            self._moved.notify_all()


def _account(device: Device) -> DeviceAccount:
    reading = DeviceReading(device.id, 2048 * MIB, 78 * 1024 * MIB, utilization_ratio=0.5)
    return DeviceAccount(device, reading, 0, 1024 * MIB, FOOTPRINT, FOOTPRINT.total_bytes, 70 * 1024 * MIB)


class MemoryStore:
    fetched: Mapping[str, int] = {"hub": 5000, "peer": 300}

    def __init__(self, *models: StoredModel) -> None:
        self.held = list(models)
        self.steps: list[Progress] = []
        self.outcome: StoredModel | HeliosError = stored("added")
        self.go = asyncio.Event()
        self.go.set()
        self.cancelled = asyncio.Event()
        self.wanted: list[Addition] = []
        self.knowledge: dict[str, Known] = {}
        """By ref: what estimates rest on."""
        self.shared: Shared | HeliosError = Shared()

    async def share(self) -> Shared:
        if isinstance(self.shared, HeliosError):
            raise self.shared
        return self.shared

    async def models(self) -> Sequence[StoredModel]:
        return self.held

    async def find(self, ref: ModelRef) -> StoredModel | None:
        return next((model for model in self.held if model.ref == ref or str(ref) in model.aliases), None)

    async def by_name(self, name: str) -> StoredModel | None:
        return await self.find(ModelRef(name))

    async def known(self, model: StoredModel) -> Known:
        return self.knowledge.get(str(model.ref), Known())

    async def add(self, wanted: Addition, progress: Callable[[Any], None]) -> StoredModel:
        self.wanted.append(wanted)
        for step in self.steps:
            progress(step)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if isinstance(self.outcome, HeliosError):
            raise self.outcome
        return self.outcome

    async def set_alias(self, alias: str, ref: ModelRef) -> ModelRef:
        found = await self.find(ref)
        if found is None:
            raise NotFound(f"cannot set the alias {alias}: no {ref} here", code="model_not_found")
        self.held = [
            replace(model, aliases=(*model.aliases, alias)) if model is found else model for model in self.held
        ]
        return found.ref

    async def remove_alias(self, alias: str) -> ModelRef:
        found = await self.find(ModelRef(alias))
        if found is None or alias not in found.aliases:
            raise NotFound(f"cannot remove the alias {alias}: none here", code="alias_not_found")
        self.held = [replace(model, aliases=()) if model is found else model for model in self.held]
        return found.ref

    async def past(self, ref: ModelRef) -> Sequence[PastRevision]:
        return ()

    async def remove(self, ref: ModelRef) -> int:
        self.held = [model for model in self.held if model.ref != ref]
        return 700

    async def usage(self) -> Usage:
        holdings = Holdings(
            tuple((str(model.ref), model.manifest) for model in self.held),
            (),
            {},
            {file.digest: file.size_bytes for model in self.held for file in model.manifest.files},
        )
        return usage_of(holdings, {}, {}, {}, frozenset(), 0)

    async def sizes(self) -> tuple[int, int]:
        usage = await self.usage()
        return usage.logical_bytes, usage.physical_bytes


class MemoryRecording:
    events, lost = 3, 1

    async def stream(self) -> AsyncIterator[bytes]:
        yield b'{"helios": "1"}\n{"ev'
        yield b'ent": 1}\n'


class MemoryHub:
    """Repositories whose configuration and headers can be read."""

    def __init__(self) -> None:
        self.held: dict[str, Known] = {}
        self.asked: list[tuple[str, str | None]] = []

    async def headers(self, repository: str, revision: str | None) -> tuple[Known, str]:
        self.asked.append((repository, revision))
        if repository not in self.held:
            raise NotFound(f"cannot find {repository}: no such repository", code="repository_not_found")
        return self.held[repository], "c" * 40

    async def glance(self, repository: str, revision: str | None) -> Glance:
        known, commit = await self.headers(repository, revision)
        return Glance(known, PROFILE, commit)


class MemoryPeers:
    """Trusts the token `good` as the peer `east`, and answers for it."""

    def __init__(self) -> None:
        self.holds: Mapping[PeerName, frozenset[str]] = {PeerName("east"): frozenset({"tiny", "far"})}
        self.answer: Answer = say_hello
        self.passed: list[tuple[PeerName, Request]] = []
        self.verified: list[tuple[str, str]] = []
        self.heard_at: float | None = None

    def members(self) -> tuple[Member, ...]:
        return (
            Member(PeerName("west"), MemberState.SELF, "10.0.0.1:1", "http://10.0.0.1", "0.1", 1),
            Member(PeerName("east"), MemberState.ALIVE, "10.0.0.2:1", "http://10.0.0.2", "0.1", 1),
        )

    async def forward(self, peer: PeerName, request: Request, reply: Reply) -> None:
        self.passed.append((peer, request))
        await self.answer(request, reply)

    def verify(self, token: str, method: str, target: str) -> PeerName | None:
        self.verified.append((method, target))
        return PeerName("east") if token == "good" else None


@dataclass
class World:
    parts: Parts
    node: MemoryNode
    store: MemoryStore
    peers: MemoryPeers
    journal: Journal
    keys: Keys
    alerts: AlertWatch
    listening: Listening
    hub: MemoryHub
    starts: dict[str, Accuracy]
    """What estimates were off by, by term."""
    http: aiohttp.ClientSession
    """To the TCP port."""
    local: aiohttp.ClientSession
    """To the Unix socket."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listening.port}"

    @property
    def engine(self) -> MemoryEngine:
        return self.node.engines["tiny"]


@asynccontextmanager
async def world(
    host: str = "127.0.0.1",
    max_body_bytes: int = 100_000,
    *,
    hosts: frozenset[str] = frozenset(),
    stalled_s: float = 60.0,
    tell_after_s: float = 1.0,
    recorded: bool = True,
    warmups: Warmups | None = None,
    real: Store | None = None,
    traces: Traces | None = None,
) -> AsyncIterator[World]:
    """A whole API on real sockets; with `real` it tells of that store and not of models in memory."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        database = Database(place / "state.db")
        await database.open()
        keys = Keys(database)
        await keys.load()
        node, peers, hub = MemoryNode(), MemoryPeers(), MemoryHub()
        starts: dict[str, Accuracy] = {}

        async def accuracy() -> Mapping[str, Accuracy]:
            return starts

        node.logs = place
        journal, store = Journal(database), MemoryStore(stored("tiny", "smol"), stored("org/other"))
        metrics = Metrics()
        alerts = AlertWatch(
            lambda: scrape_of(parts, engines=False), metrics, journal, None,
            interval_s=15.0, for_s=0.0, now=asyncio.get_running_loop().time,
        )  # fmt: skip
        parts = Parts(
            identity=Identity("west", "0.1.0", 1_700_000_000.0, place),
            node=node,
            journal=journal,
            store=real or store,
            keys=keys,
            metrics=metrics,
            alerts=alerts,
            checks=(alerts_quiet(lambda: alerts.active, alerts.epoch_offset_s),),
            survey=Survey(database, {"state": place}).take,
            kept=KeptAnswers(database),
            peers=peers,
            engine_kinds=lambda: {"vllm": SimpleNamespace(state="warm", version="0.32.0", detail=None)},
            settings=lambda ref: {"allow_pickle": True} if ref.name == "trusted" else {},
            hub_headers=hub.headers,
            hub_glance=hub.glance,
            accuracy=accuracy,
            history=History(
                Hours(database), PutOff(database), UsageTable(database).asked_at, node.wanted.pinned_at, lambda: True
            ),
            share=store.share,
            recording=MemoryRecording() if recorded else None,
            warmups=warmups,
            traces=traces,
            max_body_bytes=max_body_bytes,
            hosts=hosts,
            stalled_s=stalled_s,
            tell_after_s=lambda: tell_after_s,
        )
        socket_path = place / "heliosd.sock"
        listening = await listen(build_app(parts), host=host, port=0, socket_path=socket_path)
        async with (
            asyncio.TaskGroup() as tasks,
            aiohttp.ClientSession(f"http://127.0.0.1:{listening.port}") as http,
            aiohttp.ClientSession("http://unix", connector=aiohttp.UnixConnector(str(socket_path))) as local,
        ):
            writing = tasks.create_task(journal.run())
            yield World(parts, node, store, peers, journal, keys, alerts, listening, hub, starts, http, local)
            await listening.close()
            writing.cancel()
        await database.close()
