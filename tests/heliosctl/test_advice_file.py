"""The file of conf.d that recommendations are written into: loads as configuration, grows, and spares others' files."""

from pathlib import Path

import pytest

from heliosctl.advice_file import changed, diff, write
from heliosctl.exits import Failure
from heliosd.config_sources import load_settings
from heliosd.wire import SettingView


def setting(key: str, after: int | str | bool) -> SettingView:
    return SettingView(key=key, before="-", after=after)


def test_what_is_written_is_configuration(tmp_path: Path) -> None:
    file = tmp_path / "90-advice.toml"
    for each in (
        setting('models."org/a.b@v1".max_model_len', 4096),
        setting("prefetch.enabled", after=False),
        setting("pool.host_memory", "98304MiB"),
        setting('models."org/a.b@v1".max_num_seqs', 16),
    ):
        before, after = changed(file, [each])
        assert any(line.startswith("+") for line in diff(file, before, after).splitlines()[2:])
        write(file, after)
    loaded = load_settings({}, {"HELIOS_CONFIG": str(file), "HOME": str(tmp_path)}).settings
    assert loaded.prefetch.enabled is False and loaded.pool.host_memory == 98304 * 2**20
    assert loaded.for_model("org/a.b@v1").max_model_len == 4096
    assert loaded.for_model("org/a.b@v1").max_num_seqs == 16
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "nothing is left over"


def test_other_files_are_spared(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[prefetch]\n")
    with pytest.raises(Failure, match="written by somebody else"):
        changed(file, [setting("prefetch.enabled", after=False)])
    with pytest.raises(Failure, match="cannot write"):
        write(tmp_path / "none" / "a.toml", "")
