"""What each model takes, alone and with others, and what its removal would free."""

from heliosd.core.manifest import Manifest, ManifestFile, manifest_of
from heliosd.core.names import Digest
from heliosd.store.recipe import Piece, Recipe
from heliosd.store.usage import Holdings, ModelUsage, usage_of

BASE, TUNE, DELTA, SIDE = (Digest(letter * 64) for letter in "abcd")


def model(*files: tuple[str, Digest, int]) -> Manifest:
    return manifest_of(ManifestFile(*file) for file in files)


KNOWN = Holdings(
    refs=(
        ("base", model(("w", BASE, 100), ("side", SIDE, 5))),
        ("tune", model(("w", TUNE, 110))),
    ),
    others=(),
    recipes={TUNE: Recipe((Piece(BASE, 0, 90), Piece(DELTA, 0, 20)))},
    sizes={BASE: 100, DELTA: 20, SIDE: 5},
)


def test_a_base_is_shared_with_what_is_made_of_it() -> None:
    found = usage_of(KNOWN, {}, {}, {}, frozenset(), 7)
    assert found.models == (ModelUsage("base", 105, 5, 100, 5), ModelUsage("tune", 110, 20, 100, 20))
    assert (found.logical_bytes, found.physical_bytes, found.whole_bytes) == (215, 125, 7)
    assert found.ratio == 125 / 215


def test_what_is_in_use_is_not_freed_now() -> None:
    found = usage_of(KNOWN, {}, {}, {}, {DELTA}, 0)
    assert found.models[1] == ModelUsage("tune", 110, 20, 100, 0)


def test_a_revision_without_a_ref_keeps_what_it_has() -> None:
    known = Holdings(KNOWN.refs, (model(("x", SIDE, 5)),), KNOWN.recipes, KNOWN.sizes)
    assert usage_of(known, {}, {}, {}, frozenset(), 0).models[0] == ModelUsage("base", 105, 0, 105, 0)


def test_an_unfinished_download_goes_with_its_ref() -> None:
    shard = "e" * 64
    claims = {"tune": {shard, SIDE}}
    found = usage_of(KNOWN, claims, {"tune": 3}, {shard: 40, SIDE: 5}, frozenset(), 0)
    assert [each.frees_bytes for each in found.models] == [0, 20 + 40 + 3]


def test_an_empty_store() -> None:
    assert usage_of(Holdings((), (), {}, {}), {}, {}, {}, frozenset(), 0).ratio == 1.0
