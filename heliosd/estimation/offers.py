"""One model on so many cards of a kind: divided as the engine would, sized for what is wished, and whether it fits."""

from dataclasses import dataclass, replace

from heliosd.errors import BadRequest
from heliosd.estimation.catalogue import Gpu
from heliosd.estimation.fit import RESERVE_RATIO, Fit, judged
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model
from heliosd.estimation.parallelism import Parallel, layouts, refused
from heliosd.estimation.precision import ONLINE, Precision, Support, at_precision, precision_of
from heliosd.estimation.trials import Trials

HOPELESS = 0.25
"""Short of so much of a device's room, no other division over the same devices helps."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a model is to serve."""

    context: int
    """Tokens of a request, prompt and answer."""
    concurrency: int
    """Such requests at once, each of full length: what the KV cache must hold, and the engine's `max_num_seqs`."""
    kv_cache_dtype: str = "auto"
    precision: Precision | None = None
    """None: the checkpoint's own."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A launch on `devices` cards, and its verdict."""

    gpu: Gpu
    devices: int
    parallel: Parallel
    precision: Precision
    launch: Launch
    fit: Fit

    @property
    def usd_per_hour(self) -> float:
        return self.gpu.usd_per_hour * self.devices

    @property
    def name(self) -> str:
        return f"{self.devices} x {self.gpu.name}" if self.devices > 1 else self.gpu.name


@dataclass(frozen=True, slots=True)
class Impossible:
    """No engine would start so, whatever the memory."""

    gpu: Gpu
    devices: int
    reason: str

    @property
    def name(self) -> str:
        return f"{self.devices} x {self.gpu.name}" if self.devices > 1 else self.gpu.name


class Offers:
    """Of one model; remembers what it calculated, so keep it for one question."""

    __slots__ = ("_divided", "_launch", "_made", "_trials", "model", "own", "reserve_ratio")

    def __init__(self, model: Model, launch: Launch | None = None, reserve_ratio: float = RESERVE_RATIO) -> None:
        """`launch`: what is not decided here: version, prefix caching, eager, adapters."""
        self.model = model
        self.own = precision_of(model)
        self.reserve_ratio = reserve_ratio
        self._launch = launch or Launch()
        self._trials: dict[Precision, Trials] = {self.own: Trials(model)}
        self._divided: dict[tuple[Precision, int, int], tuple[Parallel, ...]] = {}
        self._made: dict[tuple[str, int, Wish], Offer | Impossible] = {}

    def trials(self, precision: Precision) -> Trials:
        """Raises BadRequest where the checkpoint cannot be made into it."""
        found = self._trials.get(precision)
        if found is None:
            found = self._trials[precision] = Trials(at_precision(self.model, precision))
        return found

    def at(self, gpu: Gpu, devices: int, wish: Wish) -> Offer | Impossible:
        """The first division that fits; where none does, the engine's most usual one."""
        key = (gpu.name, devices, wish)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self._make(gpu, devices, wish)
        return found

    def _make(self, gpu: Gpu, devices: int, wish: Wish) -> Offer | Impossible:
        precision = wish.precision or self.own
        if gpu.support(precision) is Support.NONE and precision is not Precision.BF16:
            return Impossible(gpu, devices, f"{gpu.name} cannot run {precision} weights")
        if wish.kv_cache_dtype.startswith("fp8") and not gpu.fp8_cache:
            return Impossible(gpu, devices, f"{gpu.name} cannot read a KV cache in fp8")
        if gpu.slice_of is not None and devices > 1:
            return Impossible(gpu, devices, "slices of MIG cannot reach each other: each serves alone")
        try:
            trials = self.trials(precision)
        except BadRequest as error:
            return Impossible(gpu, devices, error.message)
        possible = self._layouts(precision, devices, gpu.link_group)
        if not possible:
            reasons = refused(trials.model, devices, link_group=gpu.link_group)
            return Impossible(gpu, devices, reasons[0].reason if reasons else "there is no device")
        best: Offer | None = None
        for parallel in possible:
            offer = self._sized(trials, gpu, precision, parallel, wish)
            if best is None or offer.fit.fits:
                best = offer
            if offer.fit.fits or offer.fit.missing_bytes > HOPELESS * offer.fit.room_bytes:
                break
        assert best is not None
        return best

    def _layouts(self, precision: Precision, devices: int, group: int) -> tuple[Parallel, ...]:
        key = (precision, devices, group)
        found = self._divided.get(key)
        if found is None:
            all_of_them = layouts(self.trials(precision).model, devices, link_group=group)
            found = self._divided[key] = tuple(each for each in all_of_them if each.data == 1)
        return found

    def _sized(self, trials: Trials, gpu: Gpu, precision: Precision, parallel: Parallel, wish: Wish) -> Offer:
        launch = replace(
            parallel.launched(self._launch),
            platform=gpu.platform,
            device_name=gpu.device_name,
            device_bytes=gpu.usable_bytes,
            dtype=self._dtype(gpu, trials.model),
            quantization=ONLINE.get(precision) if precision is not self.own else self._launch.quantization,
            kv_cache_dtype=wish.kv_cache_dtype,
            max_model_len=wish.context,
            max_num_seqs=wish.concurrency,
        )
        fit = judged(
            trials.at(launch), gpu.usable_bytes, reserve_ratio=self.reserve_ratio, concurrency=wish.concurrency
        )
        return Offer(gpu, parallel.devices, parallel, precision, launch, fit)

    def _dtype(self, gpu: Gpu, model: Model) -> str | None:
        """Cards without bfloat16 take the same bytes as float16, and the engine wants to be told."""
        dtype = self._launch.dtype or model.dtype
        without = gpu.support(Precision.BF16) is Support.NONE
        return "float16" if without and dtype in ("bfloat16", "bf16") else self._launch.dtype
