"""What Helios chose for an engine is kept with what measurements are kept under, and nothing else is told."""

from pathlib import Path

from heliosd.config_sources import load_settings
from heliosd.engine_arguments import arguments_of, chosen_args, chosen_step
from heliosd.estimation.launch import Launch


def test_what_was_chosen_reaches_the_engine_and_separates_measurements(tmp_path: Path) -> None:
    settings = load_settings({"node.state_dir": str(tmp_path)}, {"HOME": str(tmp_path)}).settings.for_model("m")
    usual, chosen = arguments_of(settings, 256), arguments_of(settings, 256, 2048)
    assert usual != chosen
    assert chosen_args(chosen) == {"max_num_batched_tokens": 2048}
    assert chosen_args(usual) == chosen_args("") == {}


def test_a_step_is_chosen_only_where_the_operator_did_not() -> None:
    launch = Launch(max_num_batched_tokens=2048)
    assert chosen_step(launch, {}) == 2048
    assert chosen_step(launch, {"max-num-batched-tokens": 2048}) is None
    assert chosen_step(Launch(), {}) is chosen_step(None, {}) is None
