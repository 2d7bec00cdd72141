"""A revision is presented as a directory that can always be made again."""

import hashlib

import pytest

from heliosd.core.manifest import Manifest, ManifestFile, manifest_of
from heliosd.core.names import Digest
from heliosd.errors import CorruptData
from heliosd.store.layout import Layout
from heliosd.store.revisions import Revisions
from heliosd.store.threads import Threads


@pytest.fixture
def revisions(layout: Layout, threads: Threads) -> Revisions:
    return Revisions(layout, threads)


@pytest.fixture
def manifest(layout: Layout) -> Manifest:
    files = []
    for path in ("config.json", "1_Pooling/config.json", "same.json"):
        content = path.replace("same", "config").encode()
        digest = Digest(hashlib.sha256(content).hexdigest())
        layout.blob(digest).parent.mkdir(exist_ok=True)
        layout.blob(digest).write_bytes(content)
        files.append(ManifestFile(path, digest, len(content)))
    return manifest_of(files)


async def test_names_and_folders_are_kept(revisions: Revisions, layout: Layout, manifest: Manifest) -> None:
    directory = await revisions.present(manifest)
    assert directory == layout.revision(manifest.digest)
    for file in manifest.files:
        link = directory / file.path
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
        assert link.resolve() == layout.blob(file.digest)
    assert list(layout.incoming.iterdir()) == []
    assert await revisions.all() == {manifest.digest}


async def test_the_root_may_be_moved(revisions: Revisions, layout: Layout, manifest: Manifest) -> None:
    await revisions.present(manifest)
    moved = layout.root.rename(layout.root.with_name("elsewhere"))
    assert (moved / "revisions" / manifest.digest / "1_Pooling/config.json").read_text() == "1_Pooling/config.json"


async def test_it_is_left_alone_when_it_is_right(revisions: Revisions, manifest: Manifest) -> None:
    before = (await revisions.present(manifest)).stat().st_ino
    assert (await revisions.present(manifest)).stat().st_ino == before


@pytest.mark.parametrize("damage", ["missing", "foreign", "other"])
async def test_a_damaged_directory_is_made_anew(revisions: Revisions, manifest: Manifest, damage: str) -> None:
    directory = await revisions.present(manifest)
    if damage == "missing":
        (directory / "config.json").unlink()
    elif damage == "foreign":
        (directory / "1_Pooling" / "evil.py").write_text("import os")
    else:
        (directory / "config.json").unlink()
        (directory / "config.json").symlink_to("/etc/hostname")
    await revisions.present(manifest)
    found = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())
    assert found == [file.path for file in manifest.files]
    assert (directory / "config.json").read_text() == "config.json"


async def test_a_missing_or_cut_blob_is_said(revisions: Revisions, layout: Layout, manifest: Manifest) -> None:
    blob = layout.blob(manifest.files[0].digest)
    blob.write_bytes(b"short")
    with pytest.raises(CorruptData, match="has 5 bytes instead of"):
        await revisions.present(manifest)
    blob.unlink()
    with pytest.raises(CorruptData, match="is gone; add the model again"):
        await revisions.present(manifest)


async def test_removing(revisions: Revisions, layout: Layout, manifest: Manifest) -> None:
    directory = await revisions.present(manifest)
    await revisions.remove(manifest.digest)
    await revisions.remove(manifest.digest)
    assert not directory.exists()
    assert list(layout.incoming.iterdir()) == []
