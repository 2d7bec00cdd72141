"""heliosd's command line: what it prints and which exit code each end has."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from heliosd import __version__, logs
from heliosd.__main__ import Exit, main, run
from heliosd.config_places import Places
from heliosd.config_sources import Loaded, load_settings
from heliosd.errors import ConfigError, EngineFailed


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "helios.toml"
    file.write_text("[api]\nport = 9000\n[log]\nformat = 'json'\n")
    return file


def test_check_says_ok_and_names_the_files(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--config", str(config)]) == Exit.OK
    assert capsys.readouterr() == (f"ok: {config}\n", "")


def test_check_lists_every_fault_and_ends_with_78(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("[api]\nprot = 1\n[queue]\nlength = 'x'\n")
    assert main(["--check", "--config", str(config), "--port", "http"]) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "heliosd: cannot use the configuration:"
    assert f"{config}: api.prot: is not a key of [api]; the nearest is api.port" in err
    assert f"{config}: queue.length: must be a valid integer, not 'x'" in err
    assert "--port: api.port: must be a valid integer" in err


def test_a_wrong_configuration_does_not_start_the_daemon(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("[api")
    assert main(["--config", str(config)]) == Exit.CONFIG
    assert "Traceback" not in capsys.readouterr().err


def test_print_config_tells_values_and_origins(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--config", str(config), "--state-dir", "here", "--socket", "s", "--log-level", "DEBUG", "--host", "::1"]
    assert main(["--print-config", *given]) == Exit.OK
    out = capsys.readouterr().out
    assert f"# from: {config}\nport = 9000\n" in out
    assert f'# from: --state-dir\nstate_dir = "{tmp_path}/here"\n' in out
    assert f'# from: --socket\nsocket = "{tmp_path}/s"\n' in out
    assert '# from: --host\nhost = "::1"\n' in out
    assert '# from: --log-level [reload]\nlevel = "debug"\n' in out


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for code in Exit:
        assert f"\n  {code.value} " in out


def test_a_wrong_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--prot", "1"], ["--check", "--print-config"], ["serve"]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == Exit.USAGE
    assert "usage: heliosd" in capsys.readouterr().err


def test_a_simulation_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--simulate", str(tmp_path / "fleet.toml")]) == Exit.CONFIG
    assert f"cannot simulate {tmp_path}/fleet.toml" in capsys.readouterr().err


def test_as_a_module_it_tells_its_version_without_reading_a_configuration() -> None:
    done = subprocess.run([sys.executable, "-m", "heliosd", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"heliosd {__version__}\n"


# ---- running ---------------------------------------------------------------


@pytest.fixture
def loaded(tmp_path: Path, config: Path) -> Iterator[Loaded]:
    """A configuration, and the process's logging put back afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("heliosd")
    before = (root.handlers[:], root.level, ours.level)
    yield load_settings({}, {}, config=config, places=Places(tmp_path, tmp_path, tmp_path))
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.captureWarnings(False)


def test_the_daemon_gets_the_configuration_a_log_and_uvloop(loaded: Loaded, capfd: pytest.CaptureFixture[str]) -> None:
    async def serve(given: Loaded, simulate: Path | None) -> int:
        assert given is loaded and simulate == Path("fleet.toml")
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        logging.getLogger("heliosd.test").info("serving", extra={"port": 9000})
        assert len(logs.recent_log().lines()) == 1
        return 5

    assert run(serve, loaded, Path("fleet.toml")) == 5
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["port"] == 9000


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (ConfigError("cannot listen on 10.0.0.1"), Exit.CONFIG, "cannot listen on 10.0.0.1"),
        (EngineFailed("cannot start", cause="no libgomp"), Exit.FAILED, "no libgomp"),
        (ExceptionGroup("tasks", [ExceptionGroup("inner", [ConfigError("cannot a")])]), Exit.CONFIG, "cannot a"),
        (ExceptionGroup("tasks", [ConfigError("cannot a"), EngineFailed("cannot b")]), Exit.FAILED, "cannot b"),
    ],
)
def test_what_helios_raises_is_a_line_without_a_traceback(
    loaded: Loaded, capfd: pytest.CaptureFixture[str], raised: Exception, code: Exit, told: str
) -> None:
    async def serve(given: Loaded, simulate: Path | None) -> int:
        raise raised

    assert run(serve, loaded, None) == code
    err = capfd.readouterr().err
    assert told in err and "Traceback" not in err


@pytest.mark.parametrize("raised", [KeyError("x"), ExceptionGroup("tasks", [ConfigError("cannot a"), KeyError("x")])])
def test_what_nobody_expected_is_told_with_its_traceback(
    loaded: Loaded, capfd: pytest.CaptureFixture[str], raised: Exception
) -> None:
    async def serve(given: Loaded, simulate: Path | None) -> int:
        raise raised

    assert run(serve, loaded, None) == Exit.FAILED
    assert "Traceback" in json.loads(capfd.readouterr().err)["exception"]
