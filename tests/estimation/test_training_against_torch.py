"""The account of training beside real training steps on the CPU."""

import pytest

pytestmark = pytest.mark.slow

torch_training = pytest.importorskip("tests.estimation.torch_training", exc_type=ImportError)

from heliosd.estimation.families.registry import layout_of  # noqa: E402
from heliosd.estimation.fields import Fields  # noqa: E402
from heliosd.estimation.training import COMPARED, training_account  # noqa: E402

OWN = torch_training.cases()[::3]
"""A third of those that the law was read from and corrected by; the benchmark runs all of them."""
OTHERS = torch_training.family_cases()


@pytest.mark.parametrize("case", OWN, ids=lambda case: case.name)
def test_every_term_is_what_a_real_step_takes(case):
    account = training_account(layout_of(case.config), Fields(case.config), case.plan)
    found = torch_training.measured(case)
    assert account.term_bytes("weights") == found.weights
    assert account.term_bytes("gradients") == found.gradients
    assert account.term_bytes("optimizer states") == pytest.approx(found.states, rel=0.001)
    assert account.saved_bytes == pytest.approx(found.saved, rel=0.05)
    assert account.total_bytes == pytest.approx(found.peak, rel=0.02)
    assert account.low_bytes <= found.peak <= account.high_bytes
    backward = max(moment.total_bytes for moment in account.moments[1:-1])
    assert backward == pytest.approx(found.moments["backward"], rel=0.02)
    assert account.moments[-1].total_bytes == pytest.approx(found.moments["update"], rel=0.02)


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case.name)
def test_further_families_are_within_five_percent_or_say_that_they_may_not_be(case):
    account = training_account(layout_of(case.config), Fields(case.config), case.plan)
    found = torch_training.measured(case)
    assert account.term_bytes("weights") == found.weights
    assert account.low_bytes <= found.peak <= account.high_bytes
    if case.config["model_type"] in COMPARED:
        assert account.total_bytes == pytest.approx(found.peak, rel=0.05)
    else:
        assert account.assumed
