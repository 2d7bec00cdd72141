from heliosd.wire import EstimateView
from tests.heliosctl.stand_in import ESTIMATE, Refusal


def test_predicted_stands_beside_measured(daemon, ctl):
    ended = ctl("estimate", "org/small")
    lines = ended.out.splitlines()
    assert ended.code == 0
    assert lines[2].split() == ["PER", "DEVICE", "PREDICTED", "MEASURED", "DIFFERENCE"]
    assert " ".join(lines[5].split()) == "overhead 320.0 MiB 300.0 MiB +6.7%"
    assert " ".join(lines[6].split()) == "total 1.6 GiB 1.5 GiB +1.3%"
    assert "fits: needs 1.6 GiB, 5.8 GiB free on gpu0" in ended.out


def test_without_a_replica_nothing_is_measured(daemon, ctl):
    daemon.replicas.clear()
    assert "MEASURED" not in ctl("estimate", "org/small").out


def test_wishes_reach_the_daemon_as_bytes(daemon, ctl):
    ctl("estimate", "org/small", "--kv-cache", "4GiB", "--max-model-len", "4096", "--max-num-seqs", "8", "-o", "json")
    assert daemon.asked[-1][3] == {
        "model": "org/small",
        "kv_cache_bytes": 4 * 1024**3,
        "max_model_len": 4096,
        "max_num_seqs": 8,
    }


def test_what_never_fits_has_its_own_exit_code(daemon, ctl):
    daemon.estimate = EstimateView(**(ESTIMATE.model_dump() | {"verdict": "never_fits", "reason": "needs 99 GiB"}))
    ended = ctl("estimate", "org/small")
    assert ended.code == 6
    assert "never fits: needs 99 GiB" in ended.out


def test_a_refused_estimate_too(daemon, ctl):
    daemon.refusals["POST /helios/v1/estimate"] = Refusal(422, "model_cannot_fit", "cannot fit org/small")
    assert ctl("estimate", "org/small").code == 6


def test_nonsense_sizes_are_usage_errors(daemon, ctl):
    ended = ctl("estimate", "org/small", "--kv-cache", "much")
    assert ended.code == 2
    assert "write it like 40GiB" in ended.err
