"""Adapters in the store: they come in like models, belong to one, and keep it there."""

import json
from pathlib import Path

import pytest

from heliosd.core.names import ModelRef, parse_ref
from heliosd.errors import BadRequest, Conflict, CorruptData, NotAllowed, NotFound
from heliosd.store.store import Store
from heliosd.store.stored import Adapter, Addition, StoredModel
from tests.store.conftest import OpenStore
from tests.store.hub_server import HubServer
from tests.store.models import adapter_config, adapter_files, model_files, write_folder


async def add(store: Store, folder: Path, **more: object) -> StoredModel:
    return await store.add(Addition("directory", str(folder), **more), lambda progress: None)  # type: ignore[arg-type]


async def add_base(store: Store, tmp_path: Path, name: str = "org/m", alias: str | None = None) -> StoredModel:
    folder = write_folder(tmp_path / name.replace("/", "-"), model_files(seed=len(name)))
    return await add(store, folder, ref=parse_ref(name), alias=alias)


async def test_an_adapter_belongs_to_the_model_its_configuration_names(open_store: OpenStore, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "poet", adapter_files("org/m", rank_pattern={"v_proj": 24}))
    async with open_store() as store:
        base = await add_base(store, tmp_path)
        poet = await add(store, folder, alias="p")
        assert (poet.ref, poet.adapter) == (ModelRef("poet"), Adapter(base.ref, 24))
        assert poet.profile.weights_bytes == 2 * 4 * 8 * (128 + 96 + 192)
        assert base.adapter is None
        assert await store.adapters(base.ref) == (poet,)
        assert await store.find(ModelRef("p")) == poet
        directory = await store.directory(poet.revision)
        assert sorted(path.name for path in directory.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    async with open_store() as store:
        assert await store.find(poet.ref) == poet, "forgotten with a restart"


async def test_its_base_is_what_the_user_says(store: Store, tmp_path: Path) -> None:
    base = await add_base(store, tmp_path, "mine", alias="m")
    folder = write_folder(tmp_path / "poet", adapter_files("/home/somebody/llama"))
    with pytest.raises(BadRequest, match=r"calls its base '/home/somebody/llama'.*--base"):
        await add(store, folder)
    poet = await add(store, folder, base=ModelRef("m"))
    assert poet.adapter == Adapter(base.ref, 8), "an alias may be moved, the adapter stays"
    unnamed = write_folder(tmp_path / "unnamed", adapter_files(None))
    with pytest.raises(BadRequest, match="does not name its base"):
        await add(store, unnamed)


async def test_the_same_files_may_be_for_two_models(store: Store, tmp_path: Path) -> None:
    one, two = await add_base(store, tmp_path, "one"), await add_base(store, tmp_path, "two")
    folder = write_folder(tmp_path / "poet", adapter_files())
    first = await add(store, folder, ref=ModelRef("a"), base=one.ref)
    second = await add(store, folder, ref=ModelRef("b"), base=two.ref)
    assert first.revision == second.revision
    assert await store.adapters(one.ref) == (first,)
    assert await store.adapters(two.ref) == (second,)


async def test_without_its_base_it_does_not_come_in(store: Store, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "poet", adapter_files())
    for more in ({}, {"base": ModelRef("other")}):
        with pytest.raises(NotFound, match="which the store does not have; add that first") as caught:
            await add(store, folder, **more)
        assert caught.value.code == "base_not_found"
    assert not [path for path in (tmp_path / "store" / "blobs").rglob("*") if path.is_file()], "something was left"


async def test_a_base_is_a_whole_model_and_no_other(store: Store, tmp_path: Path) -> None:
    base = await add_base(store, tmp_path)
    folder = write_folder(tmp_path / "poet", adapter_files())
    poet = await add(store, folder)
    with pytest.raises(BadRequest, match="that is itself an adapter, of org/m"):
        await add(store, folder, ref=ModelRef("second"), base=poet.ref)
    with pytest.raises(BadRequest, match="it is a whole model"):
        await add(store, tmp_path / "org-m", ref=ModelRef("third"), base=base.ref)
    with pytest.raises(Conflict, match="no whole model"):
        await add(store, folder, ref=base.ref)


async def test_a_base_stays_while_it_has_adapters(store: Store, tmp_path: Path) -> None:
    base = await add_base(store, tmp_path)
    other = await add_base(store, tmp_path, "org/other")
    poet = await add(store, write_folder(tmp_path / "poet", adapter_files()))
    with pytest.raises(Conflict, match="1 adapters of it; remove poet first") as caught:
        await store.remove(base.ref)
    assert caught.value.code == "model_has_adapters"
    with pytest.raises(Conflict, match="poet are adapters of the model of that name"):
        await add(store, tmp_path / "poet", ref=base.ref, base=other.ref)
    assert await store.remove(poet.ref) > 0
    assert await store.remove(base.ref) > 0


async def test_what_a_training_left_beside_an_adapter_stays_out(store: Store, tmp_path: Path) -> None:
    await add_base(store, tmp_path)
    files = adapter_files()
    more = {f"checkpoint-9/{name}": content for name, content in files.items()}
    more |= {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "README.md": b"x",
        "LICENSE": b"free",
        "training_args.bin": b"x",
    }
    poet = await add(store, write_folder(tmp_path / "poet", files | more))
    assert [file.path for file in poet.manifest.files] == ["LICENSE", *sorted(files)]


async def test_a_model_with_an_adapter_beside_it_is_a_model(store: Store, tmp_path: Path) -> None:
    both = await add(store, write_folder(tmp_path / "both", model_files() | adapter_files()))
    assert both.adapter is None


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (adapter_config(peft_type="PROMPT_TUNING"), "PROMPT_TUNING"),
        (adapter_config(rank=0), "its rank is 0"),
        (adapter_config(rank_pattern={"q_proj": 1024}), "its rank is 1024; engines take 1 to 512"),
        (adapter_config(rank_pattern=["q_proj"]), "its rank is"),
        (json.dumps([1]).encode(), "no JSON object"),
        (b"{", "adapter_config.json"),
    ],
)
async def test_what_is_no_lora_is_refused(store: Store, tmp_path: Path, config: bytes, says: str) -> None:
    await add_base(store, tmp_path)
    files = adapter_files() | {"adapter_config.json": config}
    with pytest.raises(CorruptData, match=says):
        await add(store, write_folder(tmp_path / "poet", files))
    assert [str(model.ref) for model in await store.models()] == ["org/m"]


async def test_pickles_only_where_they_are_allowed(store: Store, tmp_path: Path) -> None:
    await add_base(store, tmp_path)
    files = {"adapter_config.json": adapter_config(), "adapter_model.bin": b"pickle"}
    folder = write_folder(tmp_path / "poet", files)
    with pytest.raises(NotAllowed, match=r"adapter_model\.bin") as caught:
        await add(store, folder)
    assert caught.value.code == "pickle_refused"
    poet = await add(store, folder, allow_pickle=True)
    assert (poet.profile.pickled, poet.profile.weights_bytes) == (True, 6)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(BadRequest, match="no weights in safetensors format"):
        await add(store, folder)


async def test_a_repository_of_the_hub_may_be_an_adapter(open_store: OpenStore, hub: HubServer, tmp_path: Path) -> None:
    hub.files["org/m"] = model_files()
    hub.files["you/poet"] = adapter_files("org/m") | {"README.md": b"x", "runs/events": b"x"}
    async with open_store(endpoint=hub.url) as store:
        with pytest.raises(NotFound, match="add that first"):
            await store.add(Addition("hub", "you/poet"), lambda progress: None)
        await store.add(Addition("hub", "org/m"), lambda progress: None)
        poet = await store.add(Addition("hub", "you/poet"), lambda progress: None)
        assert poet.adapter == Adapter(ModelRef("org/m"), 8)
        assert len(hub.asked("adapter_model.safetensors")) == 1, "fetched again, though only the base was missing"
