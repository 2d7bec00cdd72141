"""The daemon is killed at random moments of letting go and bringing back; then nothing is lost, wrong or left over."""

import random
from pathlib import Path

import pytest

from heliosd.core.names import ModelRef
from heliosd.store.stored import Addition
from tests.store.away_child import CHUNK_BYTES, MODELS
from tests.store.conftest import OpenStore
from tests.store.killed_child import killed
from tests.store.models import write_folder
from tests.store.peer_server import Neighbours, PeerServer, running_peer

pytestmark = pytest.mark.slow

KILLS = 12


async def test_killing_at_random_moments_loses_nothing_and_leaves_nothing(
    open_store: OpenStore, tmp_path: Path
) -> None:
    async with open_store() as store:
        for name, files in MODELS.items():
            folder = write_folder(tmp_path / name.replace("/", "-"), files)
            await store.add(Addition("directory", str(folder), ModelRef(name)), lambda progress: None)
    chance = random.Random(7)
    ever_away = 0
    for _ in range(KILLS):
        steps, after_s = chance.randrange(5), chance.uniform(0.0, 0.05)
        await killed("tests.store.away_child", str(tmp_path), steps=steps, after_s=after_s)
        async with running_peer(PeerServer("east", MODELS)) as east, open_store(chunk_bytes=CHUNK_BYTES) as store:
            store.ask_nearby(Neighbours([east]))
            models = await store.models()
            assert {str(model.ref) for model in models} == MODELS.keys()
            away = await store.away()
            ever_away += len(away)
            known = {file.digest for model in models for file in model.manifest.files}
            claimed = {path.stem for path in (tmp_path / "store/incoming").glob("*.part")}
            here = {path.name for path in (tmp_path / "store/blobs/sha256").glob("*/*")}
            assert known - here <= away.keys(), "lost"
            assert here <= known, "left over"
            assert claimed <= away.keys()
            assert {path.name for path in (tmp_path / "store/away").iterdir()} == away.keys()
            if chance.random() < 0.5:
                continue  # the next life finds it as this one did
            for model in models:
                async with store.hold(model.revision) as directory:
                    for path, content in MODELS[str(model.ref)].items():
                        assert (directory / path).read_bytes() == content
            assert await store.away() == {}
            assert east.sent_bytes <= sum(file.size_bytes for file in away.values())
            assert list((tmp_path / "store/incoming").iterdir()) == []
    assert ever_away, "no kill came while anything was away"
