"""Looking at a repository without fetching it, against a hub that behaves and one that does not."""

import json
from dataclasses import replace

import pytest

from heliosd.core.units import KiB, MiB
from heliosd.errors import BadRequest, CorruptData, NotAllowed, NotFound, SourceFailed
from heliosd.estimation.known import Known
from heliosd.store.sources.hub import HubAccess
from heliosd.store.sources.hub_headers import FIRST_BYTES, read_hub_headers
from tests.store.conftest import IMPATIENT
from tests.store.hub_server import HubServer, commit_of, running
from tests.store.models import config, safetensors

MODEL = {"model_type": "llama", "intermediate_size": 128}


def shard(tensors: int, place: int = 0, size_bytes: int = 64 * KiB) -> bytes:
    """A weight file of several tensors, with a header of some hundred bytes for each."""
    entries, end = {}, 0
    for index in range(tensors):
        name = f"model.layers.{index}.mlp.experts.{place}.down_proj_with_a_rather_long_name.weight"
        entries[name] = {"dtype": "BF16", "shape": [size_bytes // 2], "data_offsets": [end, end + size_bytes]}
        end += size_bytes
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def files(**shards: bytes) -> dict[str, bytes]:
    return {"config.json": config(**MODEL), **{f"{name}.safetensors": content for name, content in shards.items()}}


async def look(hub: HubServer, revision: str | None = None, **access: str | bool | None) -> tuple[Known, str]:
    at = replace(HubAccess(endpoint=hub.url, offline=False), **access)  # type: ignore[arg-type]
    return await read_hub_headers("org/m", revision, at, IMPATIENT)


async def test_kilobytes_are_enough_to_know_all_tensors(hub: HubServer) -> None:
    weights = {f"model-{n}": shard(80, n) for n in range(4)}
    hub.files["org/m"] = files(**weights)
    known, commit = await look(hub)
    assert known.model is not None
    assert known.model.sizes.layers == 2
    assert known.stored is not None
    assert (known.stored.files, known.stored.tensors, known.stored.size_bytes) == (4, 320, 320 * 64 * KiB)
    assert commit == commit_of(hub.files["org/m"])
    assert sum(map(len, weights.values())) > 20 * MiB
    assert hub.sent_bytes < 100 * KiB
    assert all(seen.range for seen in hub.log if "resolve" in seen.path)


async def test_a_longer_header_takes_a_second_range_of_just_its_length(hub: HubServer) -> None:
    content = shard(400, size_bytes=2)
    length = 8 + int.from_bytes(content[:8], "little")
    hub.files["org/m"] = files(model=content + b"")
    known, _ = await look(hub)
    assert known.stored is not None
    assert known.stored.tensors == 400
    first, second = hub.asked("model.safetensors")
    assert (first.range, second.range) == (f"bytes=0-{FIRST_BYTES - 1}", f"bytes={FIRST_BYTES}-{length - 1}")


async def test_a_server_that_ignores_ranges_is_not_read_to_the_end(hub: HubServer) -> None:
    hub.files["org/m"] = files(model=shard(800))
    hub.ignore_range = True
    known, _ = await look(hub)
    assert known.stored is not None
    assert known.stored.tensors == 800
    assert hub.sent_bytes < 25 * MiB < 2 * len(hub.files["org/m"]["model.safetensors"])


async def test_a_revision_is_looked_at_by_its_commit(hub: HubServer) -> None:
    hub.files["org/m"] = files(model=safetensors())
    commit = commit_of(hub.files["org/m"])
    assert (await look(hub, commit))[1] == commit
    assert all(f"/resolve/{commit}/" in seen.path for seen in hub.log if "resolve" in seen.path)
    with pytest.raises(NotFound) as caught:
        await look(hub, "no-such-branch")
    assert caught.value.code == "revision_not_found"


async def test_a_busy_hub_is_asked_again_and_not_for_ever(hub: HubServer) -> None:
    hub.files["org/m"] = files(model=safetensors())
    hub.busy = 2
    assert (await look(hub))[0].stored is not None
    hub.busy = 99
    with pytest.raises(SourceFailed, match=r"cannot read org/m/config\.json: the server answers 503"):
        await look(hub)


async def test_what_is_gated_says_how_to_get_in(hub: HubServer) -> None:
    hub.files["org/m"] = files(model=safetensors())
    hub.token, hub.gated = "secret", True
    with pytest.raises(NotAllowed) as caught:
        await look(hub)
    assert caught.value.code == "gated_model"
    assert (await look(hub, token="secret"))[0].stored is not None


async def test_the_token_stays_with_the_hub(hub: HubServer) -> None:
    hub.files["org/m"] = files(model=safetensors())
    async with running(HubServer(files=hub.files)) as elsewhere:
        hub.token, hub.redirect_to = "secret", elsewhere.url
        assert (await look(hub, token="secret"))[0].stored is not None
        assert len(elsewhere.log) == 2
        assert all(seen.authorization is None for seen in elsewhere.log)


async def test_without_safetensors_the_configuration_is_enough(hub: HubServer) -> None:
    hub.files["org/m"] = {"config.json": config(**MODEL), "pytorch_model.bin": b"x" * 1000}
    known, _ = await look(hub)
    assert known.model is not None
    assert known.stored is None


async def test_what_is_no_model_is_refused(hub: HubServer) -> None:
    hub.files["org/m"] = {"model.safetensors": safetensors()}
    with pytest.raises(BadRequest, match=r"cannot estimate org/m: it has no config\.json"):
        await look(hub)
    hub.files["org/m"] = files() | {"config.json": b"[1, 2]"}
    with pytest.raises(CorruptData, match=r"cannot read config\.json of org/m: it is no JSON object"):
        await look(hub)
    hub.files["org/m"] = files(model=b"\xff" * 5000)
    with pytest.raises(CorruptData, match=r"cannot accept org/m/model\.safetensors: in its header, it claims"):
        await look(hub)
    with pytest.raises(NotFound):
        await read_hub_headers("org/none", None, HubAccess(endpoint=hub.url, offline=False), IMPATIENT)


async def test_a_hub_that_is_switched_off_is_not_asked(hub: HubServer) -> None:
    with pytest.raises(SourceFailed) as caught:
        await look(hub, offline=True)
    assert (caught.value.code, hub.log) == ("hub_offline", [])
