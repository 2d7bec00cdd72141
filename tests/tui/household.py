"""A stand-in daemon with twenty models on four devices, always the same, for the snapshots of the screens."""

from typing import Any

from aiohttp import web

from heliosd.core.units import GiB, MiB
from heliosd.wire import (
    FootprintView,
    KeyView,
    MemberView,
    ModelView,
    PinView,
    QueueView,
    ReplicaView,
    TierList,
    TierView,
    TierWishView,
)
from tests.heliosctl.samples import NODE, device, replica
from tests.heliosctl.stand_in import StandIn

NAMES = [
    "meta/llama-3.3-70b", "meta/llama-3.1-8b", "qwen/qwen3-32b", "qwen/qwen3-8b", "qwen/qwen3-coder-30b",
    "mistral/small-24b", "mistral/nemo-12b", "google/gemma-3-27b", "google/gemma-3-12b", "google/gemma-3-4b",
    "deepseek/r1-distill-32b", "deepseek/v2-lite", "ibm/granite-8b", "microsoft/phi-4", "microsoft/phi-4-mini",
    "openai/gpt-oss-20b", "baai/bge-m3", "baai/bge-reranker", "tiny/smollm2-135m", "acme/support-lora",
]  # fmt: skip
_GIB = [66, 15, 31, 8, 29, 23, 12, 26, 12, 4, 32, 16, 8, 14, 4, 13, 1, 1, 1, 1]
STATES = ["ready", "ready", "ready", "asleep", "ready", "starting", "asleep", "ready", "draining", "asleep", "failed"]


def _footprint(weights: int, kv: int, overhead: int) -> FootprintView:
    parts = [weights * GiB, kv * GiB, overhead * GiB // 4]
    return FootprintView(
        weights_bytes=parts[0], kv_cache_bytes=parts[1], overhead_bytes=parts[2], total_bytes=sum(parts)
    )


def replicas() -> list[ReplicaView]:
    found = []
    for number, state in enumerate(STATES):
        predicted = _footprint(_GIB[number], 4 + number % 3, 5)
        found.append(
            replica(
                f"r{number + 1}",
                model=NAMES[number],
                state=state,
                devices=[f"gpu{number % 4}"],
                leases=(3 * number) % 7 if state == "ready" else 0,
                limit=16,
                kv_used_ratio=(number * 13 % 90) / 100 if state == "ready" else 0.0,
                predicted=predicted,
                measured=predicted if state in ("ready", "asleep", "draining") else None,
                sleep_level=1 if state == "asleep" else 0,
                pinned=number == 0,
                idle_s=7.0 * number,
                pids=[4700 + number],
            )
        )
    return found


class Household(StandIn):
    """Twenty models, eleven replicas, five who wait, three nodes, two keys."""

    def __init__(self) -> None:
        super().__init__()
        self.node = NODE.model_copy(update={"name": "gpu-box-1", "version": "1.2.3", "uptime_s": 93_780.0})
        self.replicas = replicas()
        self.devices = [self._device(number) for number in range(4)]
        self.models = [self._model(number) for number in range(len(NAMES))]  # type: ignore[misc]
        self.pins = [PinView(model=NAMES[0], replicas=1)]
        self.tiers = TierList(
            tiers=[
                TierView(tier="host", budget_bytes=256 * GiB, used_bytes=84 * GiB, models=NAMES[:3]),
                TierView(tier="nvme", budget_bytes=1800 * GiB, used_bytes=317 * GiB, models=NAMES),
                TierView(tier="hub", budget_bytes=None, used_bytes=13 * GiB, models=[NAMES[15]]),
                TierView(tier="disk", budget_bytes=8000 * GiB, used_bytes=0, models=[], note="spinning"),
            ],
            wishes=[TierWishView(model=NAMES[0], tier="host")],
            moving=None,
        )
        self.queue = [
            QueueView(
                ticket=f"t-{40 + number}",
                model=NAMES[11 + number],
                waiting_s=2.5 * number,
                reason=f"waits for {_GIB[11 + number]}.0 GiB on gpu{number % 4}: r{number + 1} has 3 leases",
                position=number,
                eta_s=None if number == 4 else 3.0 + 4 * number,
                priority="high" if number == 0 else "normal",
                key="laptop",
                since=1_000_000.0,
            )
            for number in range(5)
        ]
        self.members = [
            MemberView(name="gpu-box-1", state="self", address="10.0.0.1:7946", models=NAMES[:12], version="1.2.3",
                       ready=NAMES[:3], free_bytes=6 * GiB, queue_length=4),
            MemberView(name="gpu-box-2", state="alive", address="10.0.0.2:7946", models=NAMES[8:], version="1.2.3",
                       ready=[NAMES[9]], free_bytes=41 * GiB),
            MemberView(name="gpu-box-3", state="suspect", address="10.0.0.3:7946", models=NAMES[:2]),
        ]  # fmt: skip
        self.keys = {
            key.name: key
            for key in (
                KeyView(id="k1", name="laptop", admin=False, created_at=1_000_000.0),
                KeyView(id="k2", name="ops", admin=True, created_at=1_000_000.0, priority="high", share=2.0),
            )
        }
        for number in range(30):
            at = number % len(STATES)
            self.note(("grant", "hold", "start", "ready")[number % 4], f"r{at + 1}: {NAMES[at]} is told its {number}th "
                      f"reason, with all the arithmetic: {_GIB[at]}.0 GiB of 80.0 GiB on gpu{at % 4}",
                      replica=f"r{at + 1}", model=NAMES[at])  # fmt: skip
        self.drains: list[str] | None = None
        """The devices that are drained; None: the route is not there."""
        self.capacity: dict[str, Any] | None = None
        """None: the route is not there."""
        self.explanations: dict[str, dict[str, Any]] = {"r1": self._story_of_the_first()}

    def _story_of_the_first(self) -> dict[str, Any]:
        worth = {"loss_s": 6.0, "slower_s": 21.4, "frees_bytes": 70 * GiB, "sleeps": True, "rank": None, "of": 5}
        appetite = {"asked_per_minute": 0.5, "reuse_ratio": 0.28, "horizon_s": 600.0, "waiting": 0, "reload_s": 24.0}
        running = self.replicas[0].model_dump(mode="json")
        story = {"model": NAMES[0], "running": running, "worth": worth | {"protected": "it is pinned"}}
        return {"replica": story | {"appetite": appetite}}

    def _device(self, number: int) -> Any:
        here = [it for it in self.replicas if it.devices == [f"gpu{number}"]]
        awake = [it for it in here if it.state not in ("asleep", "failed")]
        residue = 512 * MiB * sum(it.state == "asleep" for it in here)
        promised = sum(it.predicted.total_bytes for it in awake) + residue
        taken = {"foreign_bytes": number * GiB, "safety_bytes": GiB, "promised_bytes": promised}
        return device(
            f"gpu{number}",
            capacity_bytes=141 * GiB,
            free_bytes=141 * GiB - sum(taken.values()),
            weights_bytes=sum(it.predicted.weights_bytes for it in awake),
            kv_cache_bytes=sum(it.predicted.kv_cache_bytes for it in awake),
            measured_bytes=promised,
            used_bytes=promised + number * GiB,
            utilization_ratio=0.2 * number + 0.1,
            temperature_c=50.0 + number,
            power_w=300.0 + number,
            power_limit_w=700.0,
            **taken,
        )

    def _model(self, number: int) -> ModelView:
        return ModelView(
            ref=NAMES[number],
            revision=f"{number:02x}" * 32,
            size_bytes=_GIB[number] * GiB,
            source=f"hub: {NAMES[number]}",
            created_at=1_000_000.0,
            aliases=[NAMES[number].split("/")[1]] if number % 5 == 0 else [],
            architecture="LlamaForCausalLM",
            parameters=_GIB[number] * 500_000_000,
            max_model_len=32768,
            tier="host+nvme" if number < 3 else "nvme",
            base=NAMES[1] if number == 19 else None,
        )

    def application(self) -> web.Application:
        app = super().application()
        app.router.add_get("/helios/v1/pins", self._pins)
        app.router.add_put("/helios/v1/pins/{model:.+}", self._pin)
        app.router.add_delete("/helios/v1/pins/{model:.+}", self._unpin)
        app.router.add_get("/helios/v1/tiers", self._give(lambda: self.tiers))
        app.router.add_get("/helios/v1/capacity", self._capacity)
        app.router.add_post("/helios/v1/drain", self._drain)
        app.router.add_delete("/helios/v1/drain", self._undrain)
        app.router.add_post("/helios/v1/sleep/{subject:.+}", self._sleep)
        return app

    async def _pins(self, request: web.Request) -> web.Response:
        return web.json_response({"pins": [pin.model_dump() for pin in self.pins]})

    async def _pin(self, request: web.Request) -> web.Response:
        pin = PinView(model=request.match_info["model"], replicas=(await request.json())["replicas"])
        self.pins.append(pin)
        return web.json_response(pin.model_dump())

    async def _unpin(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        self.pins = [pin for pin in self.pins if pin.model != model]
        return web.json_response({"model": model, "replicas": 0})

    async def _sleep(self, request: web.Request) -> web.Response:
        subject = request.match_info["subject"]
        self.replicas = [
            each.model_copy(update={"state": "asleep", "sleep_level": 1}) if each.id == subject else each
            for each in self.replicas
        ]
        self.changed()
        return web.json_response({"asleep": [subject]})

    async def _drain(self, request: web.Request) -> web.Response:
        if self.drains is None:
            raise web.HTTPNotFound
        self.drains.append((await request.json())["device"])
        self._mark_drained()
        return web.json_response({"node": False, "devices": self.drains, "stopped": []})

    async def _undrain(self, request: web.Request) -> web.Response:
        assert self.drains is not None
        self.drains.remove(request.query["device"])
        self._mark_drained()
        return web.json_response({"node": False, "devices": self.drains, "stopped": []})

    def _mark_drained(self) -> None:
        drains = self.drains or []
        self.devices = [each.model_copy(update={"drained": each.id in drains}) for each in self.devices]
        self.changed()

    async def _capacity(self, request: web.Request) -> web.Response:
        if self.capacity is None:
            raise web.HTTPNotFound
        return web.json_response(self.capacity)

    async def _explain(self, request: web.Request) -> web.Response:
        subject = request.match_info["subject"]
        if subject in self.explanations:
            return web.json_response({"subject": subject, "events": []} | self.explanations[subject])
        return await super()._explain(request)
