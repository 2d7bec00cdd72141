"""The hub source under the real `huggingface_hub`, against a hub that behaves and one that does not."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from heliosd.core.names import ModelRef, parse_ref
from heliosd.errors import BadRequest, CorruptData, NotAllowed, NotFound, SourceFailed
from heliosd.store.sources.source import Progress
from heliosd.store.store import Store
from heliosd.store.stored import Addition, StoredModel
from tests.store.conftest import OpenStore
from tests.store.hub_server import HubServer, commit_of, running
from tests.store.models import config, model_files, safetensors

BIG = 1 << 20
MODEL = Addition("hub", "org/m")


def ignore(_: Progress) -> None:
    pass


async def add(open_store: OpenStore, hub: HubServer, wanted: Addition = MODEL, token: str | None = None) -> StoredModel:
    async with open_store(endpoint=hub.url, token=token) as store:
        return await store.add(wanted, ignore)


async def content(store: Store, model: StoredModel) -> dict[str, bytes]:
    directory = await store.directory(model.revision)
    return {file.path: (directory / file.path).read_bytes() for file in model.manifest.files}


async def test_a_repository_comes_in_as_it_is(open_store: OpenStore, hub: HubServer) -> None:
    files = model_files(BIG) | {"1_Pooling/config.json": b"{}"}
    hub.files["org/m"] = files | {"README.md": b"hello", "onnx/model.onnx": b"x", ".gitattributes": b"y"}
    seen: list[Progress] = []
    async with open_store(endpoint=hub.url) as store:
        model = await store.add(MODEL, seen.append)
        assert await content(store, model) == files
        assert model.ref == ModelRef("org/m")
        assert model.source == f"hub org/m at {commit_of(hub.files['org/m'])[:12]}"
        assert model.profile.weights_bytes == BIG
        assert await store.find(parse_ref("org/m")) == model
    total = sum(map(len, files.values()))
    assert [seen[0].phase, seen[-1].phase] == ["list", "commit"]
    fetched = [line for line in seen if line.phase == "fetch"]
    assert fetched[-1].done_bytes == fetched[-1].total_bytes == total
    assert not [seen for seen in hub.log if "README" in seen.path]


async def test_a_revision_is_pinned_to_its_commit(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files()
    commit = commit_of(hub.files["org/m"])
    model = await add(open_store, hub, Addition("hub", "org/m", revision=commit))
    assert str(model.ref) == f"org/m@{commit}"
    assert all(f"/resolve/{commit}/" in seen.path for seen in hub.log if "resolve" in seen.path)


async def test_what_is_here_is_not_fetched_again(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.files["org/tuned"] = model_files(BIG) | {"config.json": config(tuned=True)}
    await add(open_store, hub)
    await add(open_store, hub, Addition("hub", "org/tuned"))
    assert len(hub.asked("model.safetensors")) == 1


async def test_a_cut_connection_is_taken_up_where_it_broke(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.cuts = 2
    async with open_store(endpoint=hub.url) as store:
        model = await store.add(MODEL, ignore)
        assert await content(store, model) == hub.files["org/m"]
    starts = [seen.first_byte for seen in hub.asked("model.safetensors")]
    assert len(starts) == 3
    assert 0 == starts[0] < starts[1] < starts[2]


async def test_a_download_given_up_goes_on_in_another_daemon(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.cuts = 3
    with pytest.raises(SourceFailed, match=r"3 attempts in a row .* are kept; ask again"):
        await add(open_store, hub)
    got = hub.asked("model.safetensors")[-1].first_byte
    hub.log.clear()
    await add(open_store, hub)
    assert [seen.first_byte > got for seen in hub.asked("model.safetensors")] == [True]


async def test_a_server_without_ranges_is_served_from_zero(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.cuts, hub.ignore_range = 1, True
    async with open_store(endpoint=hub.url) as store:
        model = await store.add(MODEL, ignore)
        assert await content(store, model) == hub.files["org/m"]


@pytest.mark.parametrize("path", ["model.safetensors", "tokenizer.json"])
async def test_wrong_bytes_of_the_right_size_are_refused(
    open_store: OpenStore, hub: HubServer, path: str, tmp_path: Path
) -> None:
    hub.files["org/m"] = model_files(BIG)
    right = hub.files["org/m"][path]
    hub.served[path] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(CorruptData, match=rf"cannot accept org/m/{path}.*nothing of them was kept"):
        await add(open_store, hub)
    wrong = hashlib.sha256(hub.served[path]).hexdigest()
    assert not list((tmp_path / "store").rglob(wrong))
    hub.served.clear()
    await add(open_store, hub)


async def test_a_part_with_a_bad_past_is_fetched_anew(open_store: OpenStore, hub: HubServer, tmp_path: Path) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.cuts = 3
    with pytest.raises(SourceFailed):
        await add(open_store, hub)
    (part,) = (path for path in (tmp_path / "store/incoming").glob("*.part") if not path.name.startswith("git"))
    part.write_bytes(bytes(part.stat().st_size))
    async with open_store(endpoint=hub.url) as store:
        model = await store.add(MODEL, ignore)
        assert await content(store, model) == hub.files["org/m"]
    assert [seen.first_byte for seen in hub.asked("model.safetensors")][-1] == 0


@pytest.mark.parametrize("change", [-5, +5])
async def test_a_wrong_length_is_refused(open_store: OpenStore, hub: HubServer, change: int) -> None:
    hub.files["org/m"] = model_files(BIG)
    right = hub.files["org/m"]["model.safetensors"]
    hub.served["model.safetensors"] = right[:change] if change < 0 else right + b"x" * change
    says = f"listing says {len(right)} bytes, the server announces {len(right) + change}"
    with pytest.raises(SourceFailed, match=says):
        await add(open_store, hub)


async def test_a_file_exchanged_meanwhile_is_noticed(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.commit = "f" * 40
    with pytest.raises(SourceFailed, match="serves commit ffff"):
        await add(open_store, hub)


async def test_a_busy_hub_is_asked_again(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.busy = 2
    await add(open_store, hub)


async def test_the_token_goes_to_the_hub_and_nowhere_else(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.token = "secret"
    async with running(HubServer(files=hub.files)) as elsewhere:
        # The same address by another name is another host.
        hub.redirect_to = elsewhere.url.replace("127.0.0.1", "localhost")
        await add(open_store, hub, token="secret")
        assert {seen.authorization for seen in hub.log} == {"Bearer secret"}
        assert elsewhere.asked("model.safetensors")
        assert {seen.authorization for seen in elsewhere.log} == {None}


@pytest.mark.parametrize(
    ("token", "says"), [(None, r"set a token \(HF_TOKEN\)"), ("other", "ask for it on the model's page")]
)
async def test_a_gated_model_says_what_is_missing(
    open_store: OpenStore, hub: HubServer, token: str | None, says: str
) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.token, hub.gated = "secret", True
    with pytest.raises(NotAllowed, match=says) as caught:
        await add(open_store, hub, token=token)
    assert caught.value.code == "gated_model"
    await add(open_store, hub, token="secret")


async def test_unknown_names_are_not_found(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files()
    with pytest.raises(NotFound, match="cannot find org/none on") as caught:
        await add(open_store, hub, Addition("hub", "org/none"))
    assert caught.value.code == "repository_not_found"
    with pytest.raises(NotFound, match=r"cannot find v9 in org/m") as caught:
        await add(open_store, hub, Addition("hub", "org/m", revision="v9"))
    assert caught.value.code == "revision_not_found"
    with pytest.raises(BadRequest):
        await add(open_store, hub, Addition("hub", "a/b/c", ref=ModelRef("x")))


async def test_a_private_model_looks_like_none_and_says_so(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files()
    hub.token = "secret"
    with pytest.raises(NotFound, match="private and no token"):
        await add(open_store, hub)


async def test_offline_and_unreachable_are_told_apart(open_store: OpenStore, store: Store) -> None:
    with pytest.raises(SourceFailed, match=r"switched off \(store.offline\)") as caught:
        await store.add(MODEL, ignore)
    assert caught.value.code == "hub_offline"


async def test_a_mirror_may_lie_under_a_path(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files(BIG)
    async with (
        running(HubServer(files=hub.files, prefix="/mirrors/hf")) as mirror,
        open_store(endpoint=f"{mirror.url}/mirrors/hf/") as store,
    ):
        model = await store.add(MODEL, ignore)
        assert await content(store, model) == hub.files["org/m"]
    assert hub.log == []
    assert all(seen.path.startswith("/mirrors/hf/") for seen in mirror.log)


async def test_an_unreachable_hub_says_where_it_was_looked_for(open_store: OpenStore) -> None:
    async with open_store(endpoint="http://127.0.0.1:9") as store:
        with pytest.raises(SourceFailed, match=r"cannot reach the hub at http://127\.0\.0\.1:9") as caught:
            await store.add(MODEL, ignore)
    assert caught.value.code == "hub_unreachable"


async def test_pickles_are_refused_unless_allowed(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = {"config.json": config(), "pytorch_model.bin": b"\x80\x04pickle" * 100}
    with pytest.raises(NotAllowed, match=r"pytorch_model.bin.*run code") as caught:
        await add(open_store, hub)
    assert caught.value.code == "pickle_refused"
    assert not hub.asked("pytorch_model.bin")
    model = await add(open_store, hub, Addition("hub", "org/m", allow_pickle=True))
    assert model.profile.pickled
    assert model.profile.weights_bytes == 800


async def test_a_bad_header_is_refused_and_nothing_stays(open_store: OpenStore, hub: HubServer, tmp_path: Path) -> None:
    hub.files["org/m"] = model_files() | {"model.safetensors": (1 << 40).to_bytes(8, "little") + bytes(100)}
    with pytest.raises(CorruptData, match=r"cannot accept model.safetensors: .* it claims 1.0 TiB"):
        await add(open_store, hub)
    kept = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.name != "lock"]
    assert kept == []


async def test_a_path_out_of_the_folder_is_refused(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files() | {"../../evil.json": b"{}"}
    with pytest.raises(CorruptData, match=r"evil\.json"):
        await add(open_store, hub)


async def test_cancelling_keeps_what_arrived_and_remove_gives_it_up(
    open_store: OpenStore, hub: HubServer, tmp_path: Path
) -> None:
    hub.files["org/m"] = model_files(4 * BIG)
    hub.stop_at = 3 * BIG
    incoming = tmp_path / "store/incoming"
    arrived = asyncio.Event()
    async with open_store(endpoint=hub.url) as store:
        async with asyncio.TaskGroup() as group:
            tell = lambda line: arrived.set() if line.done_bytes > 2 * BIG else None  # noqa: E731
            adding = group.create_task(store.add(MODEL, tell))
            await arrived.wait()
            adding.cancel()
        assert adding.cancelled()
        assert list(incoming.glob("*.claim"))
    async with open_store(endpoint=hub.url) as store:
        kept = sum(part.stat().st_size for part in incoming.glob("*.part"))
        assert kept >= BIG
        assert await store.models() == ()
        assert await store.remove(MODEL.ref or ModelRef("org/m")) >= kept
        assert list(incoming.iterdir()) == []
        with pytest.raises(NotFound):
            await store.remove(ModelRef("org/m"))


async def test_two_models_with_a_file_in_common_fetch_it_once(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/a"] = model_files(BIG) | {"config.json": config(a=1)}
    hub.files["org/b"] = model_files(BIG) | {"config.json": config(b=1)}
    async with open_store(endpoint=hub.url) as store, asyncio.TaskGroup() as group:
        for name in ("org/a", "org/b"):
            group.create_task(store.add(Addition("hub", name), ignore))
    assert len(hub.asked("model.safetensors")) == 1


async def test_an_index_must_find_its_shards(open_store: OpenStore, hub: HubServer) -> None:
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    hub.files["org/m"] = {
        "config.json": config(),
        "model-00001-of-00002.safetensors": safetensors(),
        "model.safetensors.index.json": index,
    }
    with pytest.raises(CorruptData, match="names 2 files of weights and 1 of them are missing"):
        await add(open_store, hub)
