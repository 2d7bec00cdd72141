"""Whatever comes, is shared and goes, in any order: files read back exactly, the account is true, nothing leaks."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliosd.core.names import ModelRef
from heliosd.state.database import Database
from heliosd.store.store import Store
from heliosd.store.stored import Addition, StoredModel
from tests.effort import examples
from tests.store.presented import read
from tests.store.related import KiB, folder, weights
from tests.store.test_sharing import blobs_in

LAYERS = 6
CHANGES = st.lists(st.integers(0, 2), min_size=LAYERS, max_size=LAYERS)


@st.composite
def shards(draw: st.DrawFn) -> tuple[bytes, ...]:
    """One or two files of a model whose layers are each of one of three kinds, so that they recur in other models."""
    seeds = draw(CHANGES)
    sizes = (5 * KiB, 300)
    layers = {f"l{number}": [(size, seed) for size in sizes] for number, seed in enumerate(seeds)}
    cut = draw(st.sampled_from((0, 2, 3)))
    note = draw(st.sampled_from((None, "x", "a longer note")))
    names = list(layers)
    return tuple(weights({name: layers[name] for name in part}, note) for part in (names[:cut], names[cut:]) if part)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 5), shards()),
        st.tuples(st.just("share"), st.booleans()),
        st.tuples(st.just("remove"), st.integers(0, 5)),
        st.tuples(st.just("restart")),
    ),
    min_size=3,
    max_size=14,
)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_any_history(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as path:
        asyncio.run(_play(Path(path), steps))


async def _open(root: Path) -> tuple[Store, Database]:
    database = Database(root / "state.sqlite")
    await database.open()
    store = Store(root / "store", database, shared_file_bytes=4 * KiB, shared_run_bytes=2 * KiB)
    await store.open()
    return store, database


async def _close(store: Store, database: Database) -> None:
    await store.close()
    await database.close()


async def _play(root: Path, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    store, database = await _open(root)
    known: dict[str, tuple[StoredModel, tuple[bytes, ...]]] = {}
    for count, step in enumerate([*steps, ("share", True), *(("remove", number) for number in range(6))]):
        match step:
            case ("add", number, files):
                source = await asyncio.to_thread(folder, root / f"source-{count}", *files)
                wanted = Addition("directory", str(source), ModelRef(f"m{number}"))
                known[f"m{number}"] = (await store.add(wanted, lambda _: None), files)
            case ("share", again):
                before = sum(blobs_in(root).values())
                found = await store.share(again=again)
                assert before - sum(blobs_in(root).values()) == found.freed_bytes
                assert found.in_use == 0
            case ("remove", number) if f"m{number}" in known:
                usage = {each.ref: each for each in (await store.usage()).models}
                del known[f"m{number}"]
                assert await store.remove(ModelRef(f"m{number}")) == usage[f"m{number}"].frees_bytes
            case ("restart",):
                await _close(store, database)
                store, database = await _open(root)
        await _check(store, root, known)
    assert blobs_in(root) == {}
    assert list((root / "store/revisions").iterdir()) == []
    assert list((root / "store/incoming").iterdir()) == []
    await _close(store, database)


async def _check(store: Store, root: Path, known: dict[str, tuple[StoredModel, tuple[bytes, ...]]]) -> None:
    assert await store.models() == tuple(model for _, (model, _) in sorted(known.items()))
    for model, files in known.values():
        directory = await store.directory(model.revision)
        for number, content in enumerate(files):
            assert read(directory, f"model-{number}.safetensors") == content
    usage = await store.usage()
    assert usage.physical_bytes == sum(blobs_in(root).values())
    assert usage.logical_bytes == sum(model.manifest.size_bytes for model, _ in known.values())
    assert await store.sizes() == (usage.logical_bytes, usage.physical_bytes)
