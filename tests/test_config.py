"""The configuration: what wins, what is refused and in which words, what it shows, what a reload changes."""

import json
import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.config import ModelSection, Settings, section_type
from heliosd.config_keys import Key, is_reloadable, keys_of
from heliosd.config_places import Places, usual_places
from heliosd.config_reload import reload_diff, with_reloadable
from heliosd.config_show import show, write_value
from heliosd.config_sources import FLAGS, Loaded, load_settings
from heliosd.core.units import GiB, MiB
from heliosd.errors import ConfigError


@pytest.fixture
def places(tmp_path: Path) -> Places:
    config_dir = tmp_path / "etc"
    (config_dir / "conf.d").mkdir(parents=True)
    return Places(config_dir, Path("/srv/state"), Path("/srv/run"))


def write(places: Places, text: str, name: str = "helios.toml") -> Path:
    file = places.config_dir / name
    file.write_text(text)
    return file


def load(places: Places, environ: Mapping[str, str] | None = None, **flags: Any) -> Loaded:
    return load_settings({key.replace("__", "."): value for key, value in flags.items()}, environ or {}, places=places)


def refusal(places: Places, environ: Mapping[str, str] | None = None, **flags: Any) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(places, environ, **flags)
    first, *lines = refused.value.message.splitlines()
    assert first == "cannot use the configuration:"
    return [line.strip() for line in lines]


def test_headers_for_the_collector_are_taken_apart_and_never_shown(places: Places) -> None:
    loaded = load(
        places,
        {"HELIOS_TRACING__HEADERS": "authorization=Basic eA==, x-tenant=a", "HELIOS_TRACING__SAMPLE_RATIO": "0.25"},
    )
    tracing = loaded.settings.tracing
    assert tracing.header_map == {"authorization": "Basic eA==", "x-tenant": "a"}
    assert (tracing.enabled, tracing.sample_ratio) == (False, 0.25)
    assert "eA==" not in repr(loaded.settings) and "eA==" not in show(loaded)


# ---- what wins -------------------------------------------------------------


def test_without_any_source_everything_has_a_default(places: Places) -> None:
    loaded = load(places)
    settings = loaded.settings
    assert settings.node.name
    assert settings.node.state_dir == Path("/srv/state")
    assert settings.store.path == Path("/srv/state/store")
    assert settings.api.socket == Path("/srv/run/heliosd.sock")
    assert (settings.api.host, settings.api.port) == ("127.0.0.1", 8484)
    assert settings.api.max_body_bytes == 64 * MiB
    assert loaded.files == ()
    assert set(loaded.origins.values()) == {"default"}


def test_flag_wins_over_variable_over_conf_d_over_file_over_default(places: Places) -> None:
    main = write(places, "[api]\nport = 1\nhost = 'a'\n[log]\nlevel = 'error'\n[queue]\nlength = 1")
    first = write(places, "[api]\nport = 2\nhost = 'b'\n[log]\nlevel = 'debug'", "conf.d/10-first.toml")
    last = write(places, "[api]\nport = 3\nhost = 'c'", "conf.d/20-last.toml")
    write(places, "not toml", "conf.d/README")
    write(places, "not toml", "conf.d/.#editor.toml")
    loaded = load(places, {"HELIOS_API__PORT": "4", "HELIOS_API__HOST": "d"}, api__port="5")
    settings = loaded.settings
    assert (settings.api.port, settings.api.host) == (5, "d")
    assert (settings.log.level, settings.queue.length, settings.queue.timeout_s) == ("debug", 1, 600.0)
    assert loaded.files == (main, first, last)
    assert loaded.origins["api.port"] == "--port"
    assert loaded.origins["api.host"] == "HELIOS_API__HOST"
    assert loaded.origins["log.level"] == str(first)
    assert loaded.origins["queue.length"] == str(main)
    assert loaded.origins["queue.timeout_s"] == "default"


def test_a_file_can_be_named_by_flag_or_variable(places: Places, tmp_path: Path) -> None:
    write(places, "[api]\nport = 1")
    other = tmp_path / "other" / "mine.toml"
    (other.parent / "conf.d").mkdir(parents=True)
    other.write_text("[api]\nport = 2\nhost = 'x'")
    (other.parent / "conf.d" / "a.toml").write_text("[api]\nhost = 'y'")
    by_variable = load(places, {"HELIOS_CONFIG": str(other)}).settings
    by_flag = load_settings({}, {"HELIOS_CONFIG": "/nowhere"}, config=other, places=places).settings
    for settings in (by_variable, by_flag):
        assert (settings.api.port, settings.api.host) == (2, "y")


def test_variables_in_every_spelling(places: Places) -> None:
    environ = {
        "HELIOS_API__PORT": "9000",
        "HELIOS_LOG_LEVEL": "DEBUG",
        "HELIOS_STORE__OFFLINE": "true",
        "HELIOS_DEVICES_SAFETY_RATIO": "0.05",
        "HELIOS_DEVICES__HOST_MEMORY": "50%",
        "HELIOS_ENGINES__START_TIMEOUT_S": "5m",
        "HELIOS_ENGINES__THREADS": "3",
        "HELIOS_CLUSTER__SEEDS": "10.0.0.1:7946, node2:7946",
        "HELIOS_QUEUE": '{"length": 7}',
        "HELIOS_MODELS": '{"org/name": {"kv_cache": "1GiB", "engine_args": {"enforce_eager": true}}}',
        "HELIOS_DRAIN__DEADLINE_S": "",
    }
    settings = load(places, environ).settings
    assert (settings.api.port, settings.log.level, settings.store.offline) == (9000, "debug", True)
    assert settings.devices.safety_ratio == 0.05
    assert settings.devices.host_bytes(10 * GiB, gpus=4) == 5 * GiB
    assert (settings.engines.start_timeout_s, settings.engines.threads) == (300.0, 3)
    assert settings.cluster.seeds == ("10.0.0.1:7946", "node2:7946")
    assert (settings.queue.length, settings.drain.deadline_s) == (7, 30.0)
    assert settings.for_model("org/name").kv_cache_bytes == GiB
    assert settings.for_model("org/name").engine_args == {"enforce_eager": True}


def test_variables_of_others_are_left_alone(places: Places) -> None:
    environ = {
        "HELIOS_URL": "http://x",
        "HELIOS_KEY": "k",
        "HELIOS_PORT": "tcp://10.0.0.1:8484",
        "HELIOS_SERVICE_HOST": "10.0.0.1",
        "HELIOS_API_PORT": "tcp://10.0.0.1:8484",
        "HELIOS_API_SERVICE_HOST": "10.0.0.1",
        "HELIOS_API_PORT_8484_TCP_ADDR": "10.0.0.1",
    }
    assert set(load(places, environ).origins.values()) == {"default"}


# ---- what is refused -------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("[api]\nprot = 1", "api.prot", "api.port"),
        ("port = 1", "port", "api.port"),
        ("[apis]\nport = 1", "apis", "api"),
        ("[api]\nkeep_alive_s = 1", "api.keep_alive_s", "engines.keep_alive_s"),
        ("[quue]\nlength = 1", "quue", "queue"),
        ('[models."a/b"]\ndtyp = 1', 'models."a/b".dtyp', 'models."a/b".dtype'),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_named(places: Places, text: str, key: str, nearest: str) -> None:
    file = write(places, text)
    (line,) = refusal(places)
    assert line.startswith(f"{file}: {key}: is not a ")
    assert line.endswith(f"the nearest is {nearest}")


@pytest.mark.parametrize("variable", ["HELIOS_API__PROT", "HELIOS_API_PROT"])
def test_an_unknown_variable_is_refused_and_the_nearest_key_named(places: Places, variable: str) -> None:
    (line,) = refusal(places, {variable: "1"})
    assert line == f"{variable}: api.prot: is not a key of [api]; the nearest is api.port"


def test_all_faults_of_all_sources_are_told_at_once_even_overridden_ones(places: Places) -> None:
    main = write(places, "[api]\nport = 'x'\n[queue]\nlength = -1")
    broken = write(places, "[api]\nport = = 1", "conf.d/a.toml")
    lines = refusal(places, {"HELIOS_LOG__LEVEL": "loud"}, api__port="99999")
    assert [line.split(": ")[0] for line in lines] == [str(main), str(main), str(broken), "HELIOS_LOG__LEVEL", "--port"]
    assert "line 2" in lines[2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[api]\nport = '8484'", "api.port: must be a valid integer"),
        ("[api]\nport = true", "api.port: must be a valid integer"),
        ("[api]\nmax_body_bytes = '8 parsecs'", "cannot read '8 parsecs' as a size"),
        ("[api]\nmax_body_bytes = true", "must be a size"),
        ("[api]\nmax_body_bytes = 0", "larger than zero"),
        ("[api]\nsocket = 'run/x.sock'", "must be an absolute path"),
        (f"[api]\nsocket = '/{'x' * 107}'", "108 bytes and the kernel allows 107"),
        ("[store]\noffline = 1", "store.offline: must be a valid boolean"),
        ("[store]\nhub_endpoint = 'example'", "must be a URL"),
        ("[devices]\nhost_memory = '101%'", "above 0% and at most 100%"),
        ("[devices]\nsafety_ratio = 0.5", "less than 0.5"),
        ("[engines]\nkv_cache = 0", "larger than zero"),
        ("[engines]\nstart_timeout_s = 0", "above zero"),
        ("[engines]\nkeep_alive_s = -1", "zero or more"),
        ("[queue]\ntimeout_s = inf", "above zero"),
        ("[drain]\ndeadline_s = nan", "zero or more"),
        ("[log]\nformat = 'xml'", "'keyvalue' or 'json'"),
        ("api = 3", "api: must be a table, [api]"),
        ("models = 3", "models: must be a table, [models]"),
        ("[models]\nx = 3", 'must be a table, [models."x"]'),
        ("[models.'../etc']\ndtype = 'auto'", "cannot read '../etc' as a model"),
        ("[models.x]\ntensor_parallel = 0", "greater than or equal to 1"),
        ("[models.x]\nengine_args = {gpu-memory-utilization = 0.9}", "Helios sets it from kv_cache"),
        ('[models.x]\nengine_args = {kv_cache_dtype = "fp8"}', "does not book that yet"),
        ("[cluster]\nenabled = true", "cluster.key: a cluster needs a shared secret"),
        ("[cluster]\nkey = 'short'", "cluster.key: has 5 characters and at least 16 are needed"),
        ("[tracing]\nheaders = 'bearer'", "tracing.headers: must be name=value, several separated by commas"),
        ("[tracing]\nsample_ratio = 1.5", "tracing.sample_ratio: must be"),
        ("[tracing]\nendpoint = 'collector:4318'", "tracing.endpoint: must be a URL"),
        ("[cluster]\nseeds = ['nowhere']", "must be an address and a port"),
        ("[cluster]\nbind = '10.0.0.1'", "must be an address and a port"),
    ],
)
def test_a_wrong_value_is_refused_in_words(places: Places, text: str, words: str) -> None:
    file = write(places, text)
    (line,) = refusal(places)
    assert line.startswith(f"{file}: "), line
    assert words in line


def test_a_named_file_that_is_missing_is_refused(places: Places, tmp_path: Path) -> None:
    (line,) = refusal(places, {"HELIOS_CONFIG": str(tmp_path / "none.toml")})
    assert line == f"{tmp_path / 'none.toml'}: cannot be read: No such file or directory"


def test_a_refused_secret_is_not_repeated(places: Places) -> None:
    write(places, "[store]\nhub_token = 123456\n[cluster]\nkey = 'tellnobody'")
    assert not any("123456" in line or "tellnobody" in line for line in refusal(places))


# ---- secrets in files ------------------------------------------------------


def test_a_secret_file_stands_for_the_secret(places: Places, tmp_path: Path) -> None:
    secret = tmp_path / "gossip.key"
    secret.write_text("0123456789abcdef\n")
    write(places, f"[cluster]\nenabled = true\nkey_file = '{secret}'")
    loaded = load(places)
    assert loaded.settings.cluster.key is not None
    assert loaded.settings.cluster.key.get_secret_value() == "0123456789abcdef"
    assert loaded.origins["cluster.key"] == str(secret)
    stronger = load(places, {"HELIOS_CLUSTER__KEY": "fedcba9876543210"}).settings.cluster.key
    assert stronger is not None and stronger.get_secret_value() == "fedcba9876543210"


def test_a_secret_file_that_says_nothing_is_refused(places: Places, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    file = write(places, f"[cluster]\nkey_file = '{tmp_path}/empty'\n[store]\nhub_token_file = '{tmp_path}/none'")
    lines = refusal(places)
    assert lines[0].startswith(f"{file}: store.hub_token_file: cannot read {tmp_path}/none")
    assert lines[1] == f"{file}: cluster.key_file: {tmp_path}/empty is empty"


def test_a_secret_and_its_file_in_one_place_are_refused(places: Places, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    write(places, f"[store]\nhub_token = 'u'\nhub_token_file = '{tmp_path}/token'")
    (line,) = refusal(places)
    assert "is set beside store.hub_token" in line


# ---- places ----------------------------------------------------------------


def test_root_and_the_service_use_the_places_of_the_system(tmp_path: Path) -> None:
    assert usual_places({"HOME": "/root"}, root=True, etc=tmp_path) == Places(
        tmp_path, Path("/var/lib/helios"), Path("/run/helios")
    )
    environ = {"STATE_DIRECTORY": "/data/helios:/data/other", "RUNTIME_DIRECTORY": "/run/helios", "HOME": "/"}
    assert usual_places(environ, root=False, etc=tmp_path).state_dir == Path("/data/helios")


def test_a_user_has_xdg_places(tmp_path: Path) -> None:
    environ = {"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/7", "STATE_DIRECTORY": "/var/lib/ci-runner"}
    assert usual_places(environ, root=False, etc=tmp_path) == Places(
        Path("/home/ada/.config/helios"), Path("/home/ada/.local/state/helios"), Path("/run/user/7/helios")
    )
    environ = {"HOME": "/home/ada", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"}
    assert usual_places(environ, root=False, etc=tmp_path) == Places(
        Path("/c/helios"), Path("/s/helios"), Path("/s/helios")
    )


def test_a_user_without_a_configuration_gets_the_machines(tmp_path: Path) -> None:
    etc, home = tmp_path / "etc", tmp_path / "home"
    etc.mkdir()
    (etc / "helios.toml").touch()
    environ = {"HOME": str(home)}
    assert usual_places(environ, root=False, etc=etc).config_dir == etc
    (home / ".config/helios").mkdir(parents=True)
    (home / ".config/helios/helios.toml").touch()
    assert usual_places(environ, root=False, etc=etc).config_dir == home / ".config/helios"


# ---- asking the settings ---------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "gpus", "expected"),
    [("auto", 0, 7 * GiB), ("auto", 2, 0), ("50%", 2, 5 * GiB), ("4GiB", 0, 4 * GiB), (0, 0, 0), ("1TiB", 0, 10 * GiB)],
)
def test_host_memory(places: Places, asked: str | int, gpus: int, expected: int) -> None:
    write(places, f"[devices]\nhost_memory = {json.dumps(asked)}")
    assert load(places).settings.devices.host_bytes(10 * GiB, gpus=gpus) == expected


def test_a_models_table_goes_before_engines_and_a_revisions_before_a_names(places: Places) -> None:
    write(
        places,
        """
        [engines]
        keep_alive_s = "1m"
        kv_cache = "1GiB"
        [models."org/name@main"]
        kv_cache = "2GiB"
        keep_alive_s = "forever"
        [models."org/name@v2"]
        tensor_parallel = 4
        keep_alive_s = 0
        """,
    )
    settings = load(places).settings
    named = settings.for_model("org/name")
    assert (named.kv_cache_bytes, named.keep_alive_s, named.tensor_parallel) == (2 * GiB, math.inf, 1)
    assert settings.for_model("org/name@v1") == named
    revised = settings.for_model("org/name@v2")
    assert (revised.kv_cache_bytes, revised.keep_alive_s, revised.tensor_parallel) == (GiB, 0.0, 4)
    other = settings.for_model("other")
    assert (other.kv_cache_bytes, other.keep_alive_s) == (GiB, 60.0)


def test_settings_are_frozen(places: Places) -> None:
    settings = load(places).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.api.port = 1  # type: ignore[misc]


# ---- showing ---------------------------------------------------------------


def _every_key(settings: Settings) -> list[Key]:
    return list(keys_of(settings))


def test_every_key_is_explained() -> None:
    for name, field in Settings.model_fields.items():
        kind = section_type(field) or ModelSection
        assert kind.__doc__, name
        for key, leaf in kind.model_fields.items():
            assert leaf.description and leaf.description.endswith("."), f"{name}.{key}"


def test_what_is_shown_is_toml_that_says_the_same(places: Places, tmp_path: Path) -> None:
    write(
        places,
        """
        [node]
        name = 'gpu "one" \\ Ü'
        [devices]
        host_memory = "33.5%"
        [engines]
        keep_alive_s = "forever"
        kv_cache = 1000001
        [cluster]
        seeds = ["a:1", "b:2"]
        [models."org/name"]
        keep_alive_s = 0.25
        engine_args = { limit = { image = 2 }, names = ["a b", 1.5, true], "odd key" = "x" }
        [models.plain]
        """,
    )
    loaded = load(places, api__port="9")
    text = show(loaded)
    for line in text.splitlines():
        assert len(line) < 121
    shown = tmp_path / "shown.toml"
    shown.write_text(text)
    again = load_settings({}, {}, config=shown, places=Places(tmp_path, Path("/elsewhere"), Path("/elsewhere")))
    assert again.settings == loaded.settings
    assert "# from: --port" in text
    assert f"# from: {places.config_dir / 'helios.toml'}" in text
    tables = tomllib.loads(text)
    for key in _every_key(loaded.settings):
        if key[0] != "models" and loaded.settings.model_dump()[key[0]][key[1]] is not None:
            assert key[1] in tables[key[0]], key


def test_the_commented_model_table_is_right_when_uncommented(places: Places) -> None:
    text = show(load(places))
    _, _, template = text.partition('\n# [models."org/name"]')
    write(places, '[models."org/name"]' + template.replace("\n# ", "\n"))
    assert load(places).settings.for_model("org/name") == load(places).settings.for_model("another")


def test_secrets_are_not_shown(places: Places) -> None:
    loaded = load(places, {"HELIOS_STORE__HUB_TOKEN": "hf_secret", "HELIOS_CLUSTER__KEY": "0123456789abcdef"})
    for text in (show(loaded), repr(loaded), str(loaded.settings)):
        assert "hf_secret" not in text and "0123456789abcdef" not in text
    assert "# hub_token is set and not shown\n" in show(loaded)
    assert "# key is set and not shown\n" in show(loaded)


@pytest.mark.parametrize("text", ["a:1,b:2", "a:1, b:2", '["a:1", "b:2"]'])
def test_a_list_in_a_variable_may_be_words_or_json(places: Places, text: str) -> None:
    assert load(places, {"HELIOS_CLUSTER__SEEDS": text}).settings.cluster.seeds == ("a:1", "b:2")


@given(st.recursive(st.text() | st.integers() | st.booleans() | st.floats(allow_nan=False), st.lists))
def test_any_value_is_written_as_toml(value: Any) -> None:
    try:
        write_value(value).encode()
    except UnicodeEncodeError:
        return  # a lone surrogate has no TOML
    assert tomllib.loads(f"v = {write_value(value)}")["v"] == value


# ---- reloading -------------------------------------------------------------


def test_again_reads_the_same_sources_anew(places: Places) -> None:
    write(places, "[api]\nport = 1\n[queue]\nlength = 1")
    loaded = load(places, {"HELIOS_LOG__LEVEL": "error"}, api__port="9")
    write(places, "[api]\nport = 2\n[queue]\nlength = 2")
    again = loaded.again().settings
    assert (again.api.port, again.queue.length, again.log.level) == (9, 2, "error")
    write(places, "[api]\nport = 2\n[queue]\nlength = 'two'")
    with pytest.raises(ConfigError, match=r"queue\.length"):
        loaded.again()


def test_a_reload_tells_what_changes_at_once_and_what_waits(places: Places) -> None:
    write(places, "[queue]\nlength = 1\n[models.a]\ndtype = 'float32'\n[models.b]\ndtype = 'float32'")
    old = load(places).settings
    write(places, "[queue]\nlength = 2\n[api]\nport = 9\n[engines]\nkeep_alive_s = 1\nthreads = 2\n[models.b]\n")
    new = load(places).settings
    at_once, waits = reload_diff(old, new)
    assert at_once == ("engines.keep_alive_s", "queue.length", "models.a", "models.b")
    assert waits == ("api.port", "engines.threads")
    merged = with_reloadable(old, new)
    assert (merged.queue.length, merged.engines.keep_alive_s, dict(merged.models)) == (2, 1.0, {})
    assert (merged.api.port, merged.engines.threads) == (8484, None)
    assert reload_diff(merged, new) == ((), waits)
    assert reload_diff(old, old) == ((), ())


def test_what_can_be_reloaded(places: Places) -> None:
    reloadable = {".".join(key) for key in _every_key(load(places).settings) if is_reloadable(key)}
    assert reloadable == {
        "devices.safety_ratio",
        "engines.keep_alive_s",
        "queue.length",
        "store.max_download_rate",
        "queue.timeout_s",
        "queue.patience_s",
        "queue.tell_after_s",
        "queue.overtaking_s",
        "pool.sleep",
        "pool.asleep_keep_alive_s",
        "pool.hot_swap",
        "pool.residence_s",
        "pool.shells",
        "store.keep_revisions",
        "store.share_with_peers",
        "store.let_go",
        "prefetch.enabled",
        "prefetch.horizon_s",
        "prefetch.max_loads",
        "drain.deadline_s",
        "log.level",
        "log.format",
        "alerts.interval_s",
        "alerts.for_s",
        "leaks.recycle",
        "leaks.window_s",
        "leaks.warm_up_s",
        "leaks.most_bytes_per_hour",
        "prices.currency",
        "prices.gpu_hour",
        "prices.gib_hour",
        "prices.prompt_million",
        "prices.cached_million",
        "prices.completion_million",
    }


def test_every_flag_names_a_key(places: Places) -> None:
    assert set(FLAGS) <= {".".join(key) for key in _every_key(load(places).settings)}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_closed_file_is_told(places: Places) -> None:
    file = write(places, "")
    file.chmod(0)
    (line,) = refusal(places)
    assert line == f"{file}: cannot be read: Permission denied"


def test_the_webhook_is_a_secret(places: Places, tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("https://hooks.example/T0/secret\n")
    write(places, f"[alerts]\nwebhook_file = '{tmp_path}/hook'")
    loaded = load(places)
    webhook = loaded.settings.alerts.webhook
    assert webhook is not None
    assert webhook.get_secret_value() == "https://hooks.example/T0/secret"
    assert "T0" not in show(loaded)
    write(places, "[alerts]\nwebhook = 'hooks.example/T0'")
    with pytest.raises(ConfigError, match=r"alerts\.webhook: must be a URL") as caught:
        load(places)
    assert "T0" not in str(caught.value)
