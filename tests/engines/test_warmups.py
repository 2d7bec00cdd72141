"""What engines compiled is kept, checked, and never used when it is not what was kept."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from heliosd.core.hardware import DeviceKind
from heliosd.engines.warmup_facts import device_facts, engine_facts, warmup_facts
from heliosd.engines.warmup_manifest import WarmupSpoiled, key_of, parse_manifest
from heliosd.engines.warmup_pack import Fits, pack, unpack
from heliosd.engines.warmups import FILES, LIVE, MANIFEST, Warmup, Warmups
from tests.engines.answers import HOST, spec

FACTS = {"revision": "abc", "device": "H100"}
KEY = key_of(FACTS)


@pytest.fixture
def warmups(tmp_path: Path) -> Warmups:
    made = Warmups(tmp_path / "warmups", 10_000)
    made.open()
    return made


def compiled(warmups: Warmups, text: str = "kernel", facts: dict[str, str] = FACTS) -> Warmup:
    """An engine that has compiled something and is still there."""
    engine = warmups.take(facts)
    place = Path(engine.environment["TRITON_CACHE_DIR"]) / "deep"
    place.mkdir(exist_ok=True)
    (place / f"{text[:8]}.so").write_text(text)
    engine.keep()
    return engine


def found(engine: Warmup) -> dict[str, str]:
    return {file.name: file.read_text() for file in engine.folder.rglob("*.so")}


def test_the_next_engine_finds_what_the_last_one_compiled_at_the_same_place(warmups: Warmups) -> None:
    first = compiled(warmups)
    place = first.folder
    first.release()
    assert not place.exists()
    second = warmups.take(FACTS)
    assert (second.folder, found(second)) == (place, {"kernel.so": "kernel"})
    assert set(second.known) == {"triton/deep/kernel.so"}
    assert found(warmups.take({**FACTS, "device": "A100"})) == {}, "another device"


def test_two_engines_at_once_do_not_write_into_one_folder(warmups: Warmups) -> None:
    first, second = warmups.take(FACTS), warmups.take(FACTS)
    assert first.folder != second.folder
    first.release()
    first.release()
    assert warmups.take(FACTS).folder == first.folder


def test_what_an_engine_changes_of_its_copy_does_not_reach_what_is_kept(warmups: Warmups) -> None:
    compiled(warmups).release()
    engine = warmups.take(FACTS)
    next(engine.folder.rglob("*.so")).write_text("another")
    engine.release()
    assert found(warmups.take(FACTS)) == {"kernel.so": "kernel"}


def test_nothing_is_kept_after_the_engine_became_another_model(warmups: Warmups) -> None:
    engine = warmups.take(FACTS)
    engine.close()
    (engine.folder / "triton" / "of another.so").write_text("x")
    engine.keep()
    assert warmups.kept() == {}


def _spoil(kept: Path) -> None:
    next(kept.rglob("*.so")).write_text("evil!!")


def _lengthen(kept: Path) -> None:
    next(kept.rglob("*.so")).write_text("kernel and more")


def _remove(kept: Path) -> None:
    next(kept.rglob("*.so")).unlink()


def _let_others_write(kept: Path) -> None:
    next(kept.rglob("*.so")).chmod(0o666)


def _let_others_into_the_folder(kept: Path) -> None:
    kept.chmod(0o777)


def _link(kept: Path) -> None:
    file = next(kept.rglob("*.so"))
    target = file.rename(kept.parent / "elsewhere")
    file.symlink_to(target)


def _other_facts(kept: Path) -> None:
    whole = json.loads((kept / MANIFEST).read_text())
    (kept / MANIFEST).write_text(json.dumps({**whole, "facts": {"revision": "another"}}))


def _no_manifest(kept: Path) -> None:
    (kept / MANIFEST).write_text("{")


@pytest.mark.parametrize(
    "harm",
    [_spoil, _lengthen, _remove, _let_others_write, _let_others_into_the_folder, _link, _other_facts, _no_manifest],
)
def test_what_is_not_what_was_kept_is_not_used_and_goes(warmups: Warmups, harm: Callable[[Path], None]) -> None:
    compiled(warmups).release()
    harm(warmups.folder / KEY)
    engine = warmups.take(FACTS)
    assert (found(engine), engine.known) == ({}, {})
    assert not (warmups.folder / KEY).exists()
    assert all(Path(place).is_dir() for place in engine.environment.values())


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(WarmupSpoiled, match="others may write to it"):
        Warmups(tmp_path / "open", 1).open()


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/files/x", "a/../../x", "a//b", "."])
def test_a_manifest_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(WarmupSpoiled, match="lies outside"):
        parse_manifest(json.dumps({"facts": {}, "files": {path: ["00", 1]}}).encode())


def test_what_was_not_used_for_longest_goes_first_and_what_runs_stays(warmups: Warmups) -> None:
    facts = [{"n": str(number)} for number in range(4)]
    running = compiled(warmups, "0" * 4000, facts[0])
    for number in (1, 2):
        compiled(warmups, str(number) * 4000, facts[number]).release()
        os.utime(warmups.folder / key_of(facts[number]) / MANIFEST, (number, number))
    kept = {each.facts["n"] for each in warmups.kept().values()}
    assert kept == {"0", "2"}, "8 kB fit into 10"
    running.release()
    os.utime(warmups.folder / key_of(facts[0]) / MANIFEST, (9, 9))
    compiled(warmups, "3" * 4000, facts[3]).release()
    assert {each.facts["n"] for each in warmups.kept().values()} == {"0", "3"}


def test_what_another_life_left_in_the_making_goes_at_the_start(warmups: Warmups) -> None:
    engine = compiled(warmups)
    warmups.open()
    assert not engine.folder.exists()
    assert not list((warmups.folder).glob(f"{LIVE}/*"))
    assert (warmups.folder / KEY / FILES).is_dir()


def test_engines_that_compile_nothing_have_no_warm_up(tmp_path: Path) -> None:
    eager = replace(spec(tmp_path, tmp_path), revision="abc")
    assert warmup_facts(eager, "1") is None
    compiles = replace(eager, engine_args={"enforce_eager": False})
    assert (facts := warmup_facts(compiles, "1")) is not None
    assert warmup_facts(replace(compiles, revision=""), "1") is None
    gpu = replace(eager, devices=(replace(HOST, kind=DeviceKind.CUDA),))
    others = [
        warmup_facts(gpu, "1"),
        warmup_facts(compiles, "2"),
        warmup_facts(replace(compiles, revision="other"), "1"),
        warmup_facts(replace(compiles, max_num_seqs=3), "1"),
        warmup_facts(replace(compiles, dtype="float32"), "1"),
        warmup_facts(replace(compiles, engine_args={"enforce_eager": False, "seed": 1}), "1"),
    ]
    assert all(other is not None and key_of(other) != key_of(facts) for other in others)
    again = warmup_facts(replace(compiles, kv_cache_bytes=1), "1")
    assert again == facts, "the size of the KV cache changes no code"


def packed_for(engine: str = "1", device: str = "this machine") -> dict[str, str]:
    return {**engine_facts(engine), **device_facts(replace(HOST, name=device)), "revision": "abc"}


FITS = Fits(["1"], [HOST], 10_000)


def packed(warmups: Warmups, facts: dict[str, str]) -> io.BytesIO:
    compiled(warmups, facts=facts).release()
    out = io.BytesIO()
    pack(warmups, key_of(facts), out)
    out.seek(0)
    return out


def test_a_peer_takes_in_what_was_packed_and_its_engine_finds_it(warmups: Warmups, tmp_path: Path) -> None:
    peer = Warmups(tmp_path / "peer", 10_000)
    peer.open()
    facts = packed_for()
    assert unpack(peer, packed(warmups, facts), FITS).facts == facts
    assert found(peer.take(facts)) == {"kernel.so": "kernel"}


def test_what_was_made_for_another_machine_is_refused_with_what_differs(warmups: Warmups) -> None:
    with pytest.raises(WarmupSpoiled, match="its engine is 2, and here it is 1"):
        unpack(warmups, packed(warmups, packed_for(engine="2")), FITS)
    with pytest.raises(WarmupSpoiled, match="its device is H100, and here it is this machine"):
        unpack(warmups, packed(warmups, packed_for(device="H100")), FITS)
    with pytest.raises(WarmupSpoiled, match="no device here"):
        unpack(warmups, packed(warmups, packed_for()), Fits(["1"], [], 10_000))
    with pytest.raises(WarmupSpoiled, match=r"engines\.warmup_cache is 5 B"):
        unpack(warmups, packed(warmups, packed_for()), Fits(["1"], [HOST], 5))


def tampered(
    original: io.BytesIO, change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes] | None]
) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=original) as before, tarfile.open(fileobj=out, mode="w") as after:
        for entry in before:
            content = before.extractfile(entry)
            assert content is not None
            if (changed := change(entry, content.read())) is not None:
                after.addfile(changed[0], io.BytesIO(changed[1]))
    out.seek(0)
    return out


def _other_content(entry: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return entry, data.replace(b"kernel", b"evil!!") if entry.name.endswith(".so") else data


def _other_name(entry: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    if entry.name.endswith(".so"):
        entry.name = "files/../../escaped.so"
    return entry, data


def _a_link(entry: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    if entry.name.endswith(".so"):
        entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, "/etc/passwd", 0
    return entry, data


def _without_files(entry: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes] | None:
    return None if entry.name.endswith(".so") else (entry, data)


def _without_manifest(entry: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes] | None:
    return None if entry.name == MANIFEST else (entry, data)


@pytest.mark.parametrize("change", [_other_content, _other_name, _a_link, _without_files, _without_manifest])
def test_a_tar_that_was_tampered_with_is_refused_and_leaves_nothing(
    warmups: Warmups, tmp_path: Path, change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes] | None]
) -> None:
    peer = Warmups(tmp_path / "peer", 10_000)
    peer.open()
    with pytest.raises(WarmupSpoiled, match="cannot take in the warm-up"):
        unpack(peer, tampered(packed(warmups, packed_for()), change), FITS)
    assert peer.kept() == {}
    assert not [path for path in tmp_path.rglob("*.so") if "peer" in path.parts or path.name == "escaped.so"]


@pytest.mark.parametrize("text", [b"", b"no tar at all" * 100])
def test_what_is_no_tar_is_refused(warmups: Warmups, text: bytes) -> None:
    with pytest.raises(WarmupSpoiled, match="cannot take in the warm-up"):
        unpack(warmups, io.BytesIO(text), FITS)
