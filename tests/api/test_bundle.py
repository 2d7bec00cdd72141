"""The support bundle has what helps, and none of the secrets and prompts that are planted here."""

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heliosctl.exits import Exit
from heliosd.support import FILE_BYTES, WHOLE_BYTES, Bundle
from tests.api.operated import Operated, operated
from tests.heliosctl.conftest import Ended, ctl, socket_path  # noqa: F401 - fixtures

HUB = "hub-token-in-the-clear"
CLUSTER = "cluster-key-in-the-clear"
KEY = "hk-planted0123456789"
PROMPT = "why is my cat purple"
PLANTED = (
    f'level=info msg="asked the hub" authorization="Bearer {HUB}"',
    "GET / HTTP/1.1 Authorization: Bearer planted-in-a-header",
    f"x-api-key: {KEY}",
    f"Received request cmpl-1: prompt: '{PROMPT}', params: SamplingParams(max_tokens=16)",
    '{"messages": [{"role": "user", "content": "' + PROMPT + '"}], "max_tokens": 5}',
    f'body="{{\\"prompt\\": \\"{PROMPT}\\"}}"',
    f"the cluster's words are {CLUSTER}",
    "fetching https://me:planted-password@hub.example/x",
    "-----BEGIN PRIVATE KEY-----\nplantedprivate\n-----END PRIVATE KEY-----",
)
SECRETS = (HUB, CLUSTER, KEY, PROMPT, "planted-in-a-header", "planted-password", "plantedprivate")


def read(archive: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {each.name: tar.extractfile(each) for each in tar.getmembers()}
        return {name.removeprefix("helios-bundle/"): file.read().decode() for name, file in found.items() if file}


def check_clean(files: dict[str, str], *more: str) -> None:
    for name, text in files.items():
        for secret in (*SECRETS, *more):
            assert secret not in text, (secret, name)


async def bundle(it: Operated) -> dict[str, str]:
    async with it.local.get("/helios/v1/doctor/bundle") as response:
        assert response.status == 200
        return read(await response.read())


async def test_a_bundle_has_what_helps_and_no_secret() -> None:
    with tempfile.TemporaryDirectory() as name:
        async with operated(Path(name)) as it:
            _, secret = await it.keys.add("ci", admin=True)
            await it.ask("POST", "/helios/v1/replicas", {"model": "me/a"})
            logs = Path(name) / "state" / "logs"
            logs.mkdir(parents=True)
            (logs / "r1.log").write_text("\n".join(PLANTED))
            for line in PLANTED:
                it.world.journal.note("note", line, detail={"headers": {"authorization": f"Bearer {HUB}"}})
            async with it.http.delete(
                "/helios/v1/models/me/a", headers={"Authorization": f"Bearer {KEY}", "X-Helios-Reason": PLANTED[1]}
            ):
                pass
            await it.world.journal.flushed()
            files = await bundle(it)
    assert {
        "node.json", "ledger.json", "replicas.json", "queue.json", "doctor.json", "models.json", "storage.json",
        "journal.json", "audit.json", "metrics.txt", "heliosd.log", "config.toml", "versions.json", "database.json",
        "logs/r1.log",
    } <= files.keys()  # fmt: skip
    check_clean(files, secret)
    assert "r1" in files["replicas.json"] and '"g0"' in files["ledger.json"]
    assert "max_tokens=16" in files["logs/r1.log"] and "port = 8484" in files["config.toml"]
    assert '"table": "kept_answers"' in files["database.json"]
    assert "helios_" in files["metrics.txt"]


def test_a_bundle_is_bounded() -> None:
    out = io.BytesIO()
    made = Bundle(out)
    for number in range(2 + WHOLE_BYTES // FILE_BYTES):
        made.text(f"{number}.txt", "0123456789 abcdef\n" * (2 * FILE_BYTES // 18))
    made.close()
    files = read(out.getvalue())
    assert all(len(text) <= FILE_BYTES for text in files.values())
    assert sum(map(len, files.values())) <= WHOLE_BYTES + 1000
    assert "bytes, " in files["left-out.txt"]


@pytest.fixture
def down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine whose daemon does not run."""
    config = tmp_path / "helios.toml"
    config.write_text(f'[store]\nhub_token = "{HUB}"\n[cluster]\nkey = "{CLUSTER}"\n[api]\nport = 1234\n')
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "r1.log").write_text("\n".join(PLANTED))
    monkeypatch.setenv("HELIOS_CONFIG", str(config))
    monkeypatch.setenv("HELIOS_NODE__STATE_DIR", str(tmp_path))
    yield tmp_path


def test_without_a_daemon_it_has_what_lies_on_the_machine(down: Path, ctl: Callable[..., Ended]) -> None:  # noqa: F811
    target = down / "b.tar.gz"
    ended = ctl("doctor", "--bundle", str(target))
    assert (ended.code, ended.out) == (Exit.UNREACHABLE, f"{target}\n")
    assert target.stat().st_mode & 0o777 == 0o600
    files = read(target.read_bytes())
    assert {"config/helios.toml", "versions.json", "database.json", "logs/r1.log"} <= files.keys()
    assert "port = 1234" in files["config/helios.toml"]
    check_clean(files)


def test_a_place_that_cannot_be_written_is_told(down: Path, ctl: Callable[..., Ended]) -> None:  # noqa: F811
    ended = ctl("doctor", "--bundle", str(down / "no" / "b.tar.gz"))
    assert ended.code == Exit.FAILED
    assert "cannot write the bundle" in ended.err
