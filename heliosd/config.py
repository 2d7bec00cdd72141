"""What the operator can say, as strict and frozen models: every key with its default and its explanation.

Where values come from is `config_sources`; how they are shown is `config_show`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from heliosd.config_values import (
    AbsolutePath,
    Bytes,
    BytesAboveZero,
    BytesOrAuto,
    BytesOrShare,
    CountOrAuto,
    LowerCase,
    Seconds,
    SecondsAboveZero,
    SecondsOrAuto,
    SecondsOrForever,
    Share,
    SwitchOrAuto,
    Text,
    Words,
)
from heliosd.core.booked_arguments import refusal
from heliosd.core.messages import Priority
from heliosd.core.names import parse_ref
from heliosd.core.prices import Prices
from heliosd.core.units import MiB

_LONGEST_SOCKET_PATH_BYTES = 107
"""The kernel's `sun_path` has 108 bytes with the closing zero."""
_SHORTEST_KEY = 16


def _reloadable(default: Any, description: str, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"reloadable": True}, **limits)


def _wrong(key: str, message: str) -> PydanticCustomError:
    """A fault that shows only when a section is whole, told of the key to change."""
    return PydanticCustomError("wrong_together", "{message}", {"message": message, "key": key})


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL that begins with http:// or https://")
    return text.rstrip("/")


def _secret_url(text: SecretStr) -> SecretStr:
    _url(text.get_secret_value())
    return text


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("must be an address and a port, such as 127.0.0.1:7946")
    return text


def _addresses(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_address(text) for text in texts)


def _ref(text: str) -> str:
    return str(parse_ref(text))


def _prices(given: dict[str, float]) -> dict[str, float]:
    for name, price in given.items():
        if not name or not 0 <= price < math.inf:
            raise ValueError(f"must be prices of zero or more by device, not {name!r} = {price}")
    return given


def _engine_args(given: dict[str, Any]) -> dict[str, Any]:
    for name in given:
        if why := refusal(name):
            raise ValueError(why)
    return given


class Section(BaseModel):
    """One table of helios.toml."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class NodeSection(Section):
    """This machine."""

    name: Text = Field(description="What the node is called in logs and in the cluster. Default: the host name.")
    state_dir: AbsolutePath = Field(description="What must survive a restart: the database and, by default, the store.")
    runtime_dir: AbsolutePath = Field(description="What may vanish at a reboot: sockets.")


class ApiSection(Section):
    """Where clients reach the daemon."""

    host: Text = Field("127.0.0.1", description="Address to listen on. Beyond loopback every request needs a key.")
    port: int = Field(8484, ge=0, le=65535, description="TCP port to listen on; 0 takes any that is free.")
    socket: AbsolutePath = Field(
        description="Unix socket for administrators. Default: heliosd.sock in the runtime_dir."
    )
    socket_group: Text = Field("helios", description="Members of this group may use the Unix socket, when it exists.")
    max_body_bytes: BytesAboveZero = Field(64 * MiB, description="A longer request body is refused.")

    @model_validator(mode="after")
    def _socket_fits(self) -> Self:
        length = len(str(self.socket).encode())
        if length > _LONGEST_SOCKET_PATH_BYTES:
            raise _wrong(
                "socket",
                f"{self.socket} has {length} bytes and the kernel allows {_LONGEST_SOCKET_PATH_BYTES}; "
                "set api.socket to a shorter path",
            )
        return self


class DevicesSection(Section):
    """What memory engines may use."""

    host_memory: BytesOrShare = Field(
        None,
        description='RAM for engines on the CPU: a size such as "8GiB", a share such as "50%", 0 for none. '
        '"auto": 70% when there is no GPU, none otherwise.',
    )
    use_gpus: bool = Field(True, description="Whether to use the NVIDIA GPUs of this machine.")
    read_interval_s: SecondsAboveZero = Field(5.0, description="How often the devices' real use is read.")
    safety_ratio: float = _reloadable(0.02, "Share of each device that is promised to nobody.", ge=0, lt=0.5)

    def host_bytes(self, total_bytes: int, *, gpus: int) -> int:
        """Bytes of a machine with `total_bytes` of RAM to set aside for engines on the CPU; 0 for none."""
        asked = self.host_memory
        if asked is None:
            asked = 0 if gpus else Share(0.7)
        return int(asked.ratio * total_bytes) if isinstance(asked, Share) else min(asked, total_bytes)


class StoreSection(Section):
    """Where models are kept and come from."""

    path: AbsolutePath = Field(description="The model store. Default: store in the state_dir.")
    hub_endpoint: Annotated[str, AfterValidator(_url)] | None = Field(
        None, description="URL of the model hub. Default: HF_ENDPOINT, else the public Hub."
    )
    hub_token: SecretStr | None = Field(
        None, description="Token for gated models. Default: as huggingface_hub finds it (HF_TOKEN, its login)."
    )
    hub_token_file: AbsolutePath | None = Field(None, description="File with the hub token, instead of hub_token.")
    connections: int = Field(
        8, ge=1, le=64, description="Connections to the hub at once, all downloads together; a large file uses several."
    )
    max_download_rate: Bytes = _reloadable(
        0, 'Bytes a second that all downloads together may take, such as "50MiB"; 0: no limit.'
    )
    offline: bool = Field(False, description="Never ask the hub: only what is already here can be used.")
    share: bool = Field(True, description="Keep what new models have in common with older ones on the disk only once.")
    share_with_peers: bool = _reloadable(
        True, "Whether other nodes of the cluster may fetch models from here; not those that the hub restricts."
    )
    let_go: Annotated[Literal["never", "peer", "hub"], LowerCase] = _reloadable(
        "never",
        "Whether room is made by removing models that others have, to fetch them again when they are asked for: "
        "never, only what a peer has (peer), or also what only the hub has (hub).",
    )
    nvme_budget: BytesOrAuto = Field(
        None, description='Bytes that the store may hold at path. "auto": what the file system has.'
    )
    disk_dir: AbsolutePath | None = Field(
        None, description="Folder of a slower volume for models that are seldom used. Default: none."
    )
    disk_budget: BytesOrAuto = Field(
        None, description='Bytes that disk_dir may hold. "auto": what the file system has.'
    )
    host_memory: BytesOrAuto = Field(
        None,
        description="RAM in which models that are likely to be loaded are kept; sleeping models go first. "
        '"auto": none.',
    )
    keep_revisions: int = _reloadable(
        2, "So many revisions of a model stay when `gc` tidies up: what it means now and what it meant last.", ge=1
    )


class EnginesSection(Section):
    """How engines are started, unless a model's own table says otherwise."""

    preload: bool = Field(True, description="Keep an engine process preloaded, so that models start in seconds.")
    threads: CountOrAuto = Field(None, description='CPU threads per engine on the host. "auto": as the cores allow.')
    start_timeout_s: SecondsAboveZero = Field(600.0, description="An engine that is not ready by then has failed.")
    warmup_cache: Bytes = Field(
        8192 * MiB, description="What engines compiled is kept for their next start, up to so much; 0 keeps nothing."
    )
    kv_cache: BytesOrAuto = Field(None, description='KV cache per device. "auto": from the model and what is free.')
    max_num_seqs: CountOrAuto = Field(
        None, description='Sequences one engine works on at once. "auto": 32 on the host, 256 on a GPU.'
    )
    keep_alive_s: SecondsOrForever = _reloadable(300.0, 'An engine idle for so long is stopped; "forever" keeps it.')


class QueueSection(Section):
    """Requests that wait for a model."""

    length: int = _reloadable(1000, "Requests beyond so many waiting ones are refused.", ge=0)
    timeout_s: SecondsAboveZero = _reloadable(600.0, "A request that waited for so long is refused.")
    patience_s: Seconds = _reloadable(
        5.0, "How long a ready model may serve others while an older request waits for its memory."
    )
    overtaking_s: SecondsAboveZero = _reloadable(
        60.0, "A request that waited for so long goes before all younger ones, whatever their class and key."
    )
    tell_after_s: Seconds = _reloadable(
        1.0, "A client that waits for a stream for so long is told what it waits for, in comments of the stream."
    )


class PoolSection(Section):
    """Models that are kept at hand."""

    sleep: bool = _reloadable(
        True, "Whether models sleep before they are stopped, where their engine and device can: they wake in a second."
    )
    asleep_keep_alive_s: SecondsOrForever = _reloadable(
        3600.0, 'A model that slept for so long is stopped; "forever" lets it sleep on.'
    )
    host_memory: BytesOrShare = Field(
        None, description='RAM that sleeping models may hold: a size or a share. "auto": half of the machine\'s.'
    )
    residence_s: Seconds = _reloadable(
        2.0, "An idle model that just became ready is not sent away before so long; at most queue.patience_s."
    )

    shells: int = _reloadable(
        1,
        "So many processes of each kind of engine are made ahead, for starts to begin in; 0: none.",
        ge=0,
        le=16,
    )
    hot_swap: bool = _reloadable(
        True, "Whether an idle engine may become another model of the same shape: a fraction of a start."
    )

    def host_bytes(self, total_bytes: int) -> int:
        """Bytes of a machine with `total_bytes` of RAM."""
        asked = Share(0.5) if self.host_memory is None else self.host_memory
        return int(asked.ratio * total_bytes) if isinstance(asked, Share) else min(asked, total_bytes)


class PrefetchSection(Section):
    """Models that are started before anyone asks, because a forecast expects that somebody will."""

    enabled: bool = _reloadable(
        True, "Whether models start ahead, in room that is free or held by idle models of much less worth."
    )
    horizon_s: SecondsAboveZero = _reloadable(60.0, "How far ahead the forecast looks.")
    max_loads: int = _reloadable(1, "So many may be starting at a time; requests' own starts count.", ge=1, le=64)


class LeaksSection(Section):
    """Engines whose memory grows without end."""

    recycle: bool = _reloadable(True, "Whether an engine that leaks is stopped once it is idle, and another started.")
    window_s: SecondsAboveZero = _reloadable(
        3600.0, "Growth must last for so long to be a leak; at most one engine of a model is recycled in that time."
    )
    warm_up_s: Seconds = _reloadable(300.0, "After an engine became ready its growth does not count for so long.")
    most_bytes_per_hour: Bytes = _reloadable(64 * MiB, "Slower growth is not called a leak.")


class DrainSection(Section):
    """Going down."""

    deadline_s: Seconds = _reloadable(30.0, "How long running requests may still take when the daemon is told to stop.")


class LogSection(Section):
    """What the daemon says on stderr."""

    level: Annotated[Literal["debug", "info", "warning", "error"], LowerCase] = _reloadable(
        "info", "The least important lines to print: debug, info, warning or error."
    )
    format: Annotated[Literal["keyvalue", "json"], LowerCase] = _reloadable(
        "keyvalue", "One line of key=value pairs, or one JSON object a line: keyvalue or json."
    )


class RecordingSection(Section):
    """What the scheduler was told and answered, kept for `heliosctl replay`."""

    enabled: bool = Field(True, description="Whether it is kept, in the folder recording of the state_dir.")
    max_bytes: BytesAboveZero = Field(
        256 * MiB, description="The oldest part goes when it grows beyond; an event takes some hundred bytes."
    )


class TracingSection(Section):
    """What happens to each request, as OpenTelemetry's spans. Off: nothing is made and no library is loaded."""

    enabled: bool = Field(False, description="Whether requests are traced; `heliosctl trace` shows the last ones.")
    endpoint: Annotated[str, AfterValidator(_url)] | None = Field(
        None, description="Collector that takes OTLP over HTTP, such as http://127.0.0.1:4318. Default: none."
    )
    sample_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of the requests traced whose caller does not decide it by traceparent."
    )
    headers: SecretStr | None = Field(
        None, description="Sent to the collector with each export, as name=value, several separated by commas."
    )
    service_name: Text = Field("heliosd", description="What the traces say they come from.")

    @model_validator(mode="after")
    def _headers_readable(self) -> Self:
        for part in self.headers.get_secret_value().split(",") if self.headers else ():
            name, equals, value = part.partition("=")
            if not equals or not name.strip() or not value.isprintable():
                raise _wrong("headers", "must be name=value, several separated by commas")
        return self

    @property
    def header_map(self) -> dict[str, str]:
        """`headers` one by one."""
        text = self.headers.get_secret_value() if self.headers else ""
        pairs = (part.partition("=") for part in text.split(",") if part)
        return {name.strip(): value.strip() for name, _, value in pairs}


class AlertsSection(Section):
    """What is worth telling somebody at once; `heliosctl alerts` shows it."""

    webhook: Annotated[SecretStr, AfterValidator(_secret_url)] | None = Field(
        None, description="URL that alerts are posted to, as an Alertmanager posts them. Default: none."
    )
    webhook_file: AbsolutePath | None = Field(None, description="File with that URL, instead of webhook.")
    interval_s: SecondsAboveZero = _reloadable(15.0, "How often the conditions of the alerts are looked at.")
    for_s: SecondsOrAuto = _reloadable(
        None, 'A condition that has been true for so long fires its alert. "auto": as long as each alert says.'
    )


class PricesSection(Section):
    """What memory and tokens cost: for `heliosctl usage` and the budgets of keys. Nothing is priced at first."""

    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = _reloadable(
        "USD", "Code of the currency of all prices and budgets, by ISO 4217."
    )
    gpu_hour: Annotated[dict[str, float], AfterValidator(_prices)] = _reloadable(
        {}, 'Of a whole device for an hour, by a part of its name: {H100 = 2.5, "*" = 1.0}. Memory costs its part.'
    )
    gib_hour: Annotated[dict[str, float], AfterValidator(_prices)] = _reloadable(
        {}, "Of one GiB of a device's memory for an hour, likewise; goes before gpu_hour."
    )
    prompt_million: float = _reloadable(0.0, "Of a million tokens of prompts.", ge=0)
    cached_million: float | None = _reloadable(
        None, "Of a million tokens of prompts that were in the KV cache. Default: prompt_million.", ge=0
    )
    completion_million: float = _reloadable(0.0, "Of a million tokens of answers.", ge=0)

    def prices(self) -> Prices:
        """As the core knows them."""
        return Prices(
            self.currency,
            self.gpu_hour,
            self.gib_hour,
            self.prompt_million,
            self.cached_million,
            self.completion_million,
        )


class ClusterSection(Section):
    """Other nodes that answer as one with this one."""

    enabled: bool = Field(False, description="Whether to look for other nodes.")
    name: Text = Field("helios", description="Name of the cluster; nodes with another one are left alone.")
    key: SecretStr | None = Field(
        None, description=f"Secret that all nodes of the cluster share, of at least {_SHORTEST_KEY} characters."
    )
    key_file: AbsolutePath | None = Field(None, description="File with the shared secret, instead of key.")
    bind: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1:7946", description="Address and port for gossip; an address of this machine that peers can reach."
    )
    advertise_url: Annotated[str, AfterValidator(_url)] | None = Field(
        None, description="URL at which peers reach this node's API. Default: from api.host and api.port."
    )
    seeds: Annotated[Words, AfterValidator(_addresses)] = Field(
        (), description="Gossip addresses (host:port) of nodes to ask first; one that is up is enough."
    )

    @model_validator(mode="after")
    def _key_is_there(self) -> Self:
        if self.enabled and self.key is None:
            raise _wrong("key", "a cluster needs a shared secret; set cluster.key or cluster.key_file")
        if self.key is not None and len(self.key.get_secret_value()) < _SHORTEST_KEY:
            raise _wrong(
                "key",
                f"has {len(self.key.get_secret_value())} characters and at least {_SHORTEST_KEY} are needed; "
                "make one with `openssl rand -base64 32`",
            )
        return self


class ModelSection(Section):
    """What differs for one model. A key left out is as in [engines]."""

    keep_alive_s: SecondsOrAuto = Field(
        None, description='Idle for so long, it is stopped. "auto": engines.keep_alive_s.'
    )
    kv_cache: BytesOrAuto = Field(None, description='KV cache per device. "auto": engines.kv_cache.')
    max_model_len: CountOrAuto = Field(None, description='Longest context in tokens. "auto": what the model says.')
    max_num_seqs: CountOrAuto = Field(None, description='Sequences worked on at once. "auto": engines.max_num_seqs.')
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        "auto", description="Number format of the weights: auto, float16, bfloat16 or float32."
    )
    tensor_parallel: int = Field(1, ge=1, description="Devices to split each layer over.")
    pipeline_parallel: CountOrAuto = Field(
        None,
        description=(
            "Pipeline stages to cut the layers into, each on tensor_parallel devices of its own. "
            '"auto": one; but where the heads do not divide over tensor_parallel devices, or only slow links join '
            "them, stages on just as many."
        ),
    )
    min_replicas: int = _reloadable(0, "So many replicas are always kept ready, asked for or not.", ge=0, le=64)
    max_replicas: int = Field(1, ge=1, le=64, description="So many may run when one alone cannot keep up.")
    trust_remote_code: bool = Field(False, description="Whether to run Python code that comes with the model.")
    allow_pickle: bool = Field(False, description="Whether weights may be pickles, which can run code when read.")
    keep_revisions: CountOrAuto = _reloadable(
        None, 'So many revisions of it stay when `gc` tidies up. "auto": store.keep_revisions.'
    )
    share_with_peers: SwitchOrAuto = _reloadable(
        None,
        'Whether other nodes may fetch it from here. "auto": as store.share_with_peers says, unless it is restricted.',
    )
    priority: Annotated[Literal["low", "normal", "high"], LowerCase] = Field(
        "normal", description="Class of its requests where the API key has none of its own: low, normal or high."
    )
    engine_args: Annotated[dict[str, Any], AfterValidator(_engine_args)] = Field(
        {}, description="Passed to the engine unchanged."
    )


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What holds for one model, its own table and [engines] taken together."""

    keep_alive_s: float
    """Infinite: never stopped for being idle."""
    kv_cache_bytes: int | None
    """Per device. None: choose from the model and what is free."""
    max_model_len: int | None
    """None: what the model's configuration says."""
    max_num_seqs: int | None
    """None: as suits the device."""
    dtype: str
    tensor_parallel: int
    pipeline_parallel: int | None
    """None: as many as it takes to split the model over `tensor_parallel` devices."""
    min_replicas: int
    max_replicas: int
    trust_remote_code: bool
    allow_pickle: bool
    keep_revisions: int
    """What it means now included."""
    priority: Priority
    engine_args: Mapping[str, Any]


class Settings(BaseSettings):
    """The whole configuration. Made by `config_sources.load_settings`, which knows what wins over what."""

    model_config = SettingsConfigDict(strict=True, frozen=True, extra="forbid")

    node: NodeSection
    api: ApiSection
    devices: DevicesSection = DevicesSection()
    store: StoreSection
    engines: EnginesSection = EnginesSection()
    queue: QueueSection = QueueSection()
    pool: PoolSection = PoolSection()
    prefetch: PrefetchSection = PrefetchSection()
    leaks: LeaksSection = LeaksSection()
    drain: DrainSection = DrainSection()
    log: LogSection = LogSection()
    recording: RecordingSection = RecordingSection()
    tracing: TracingSection = TracingSection()
    alerts: AlertsSection = AlertsSection()
    prices: PricesSection = PricesSection()
    cluster: ClusterSection = ClusterSection()
    models: dict[Annotated[str, AfterValidator(_ref)], ModelSection] = _reloadable(
        {}, "Settings of single models, each under its ref."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` merged: it must tell where each value came from, which is lost in a merge here."""
        return (init_settings,)

    def for_model(self, name: str) -> ModelSettings:
        """What holds for `org/name` or `org/name@revision`; a table for the revision goes before one for the name."""
        own = self.models.get(name) or self.models.get(name.partition("@")[0]) or ModelSection()
        return ModelSettings(
            keep_alive_s=self.engines.keep_alive_s if own.keep_alive_s is None else own.keep_alive_s,
            kv_cache_bytes=own.kv_cache or self.engines.kv_cache,
            max_model_len=own.max_model_len,
            max_num_seqs=own.max_num_seqs or self.engines.max_num_seqs,
            dtype=own.dtype,
            tensor_parallel=own.tensor_parallel,
            pipeline_parallel=own.pipeline_parallel,
            min_replicas=own.min_replicas,
            max_replicas=max(own.max_replicas, own.min_replicas),
            trust_remote_code=own.trust_remote_code,
            allow_pickle=own.allow_pickle,
            keep_revisions=own.keep_revisions or self.store.keep_revisions,
            priority=Priority[own.priority.upper()],
            engine_args=own.engine_args,
        )


def section_type(field: FieldInfo) -> type[Section] | None:
    """The section behind a field of Settings; None for `models`, which is a table of them."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None
