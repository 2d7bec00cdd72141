"""Wire models as a small daemon would tell them; the functions take what shall be different."""

from typing import Any

from heliosd import __version__
from heliosd.core.units import GiB, MiB
from heliosd.wire import (
    DeviceView,
    EngineKindView,
    EstimateView,
    FileView,
    FootprintView,
    ModelDetail,
    NodeView,
    ReplicaView,
    SpanView,
    TimelineView,
    TraceSpan,
    TraceView,
)

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
