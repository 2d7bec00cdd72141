"""The zygote's environment."""

from heliosd.core.hardware import DeviceKind
from heliosd.engines.surroundings import surroundings


def test_engines_on_the_host_get_threads_that_do_not_spin_and_compile_nothing() -> None:
    made = surroundings(DeviceKind.HOST, 3, {"PATH": "/bin"})
    assert made["OMP_NUM_THREADS"] == "3"
    assert made["GOMP_SPINCOUNT"] == "1000"
    assert made["TORCH_COMPILE_DISABLE"] == "1"
    assert made["PATH"] == "/bin"


def test_engines_on_the_host_see_no_gpu() -> None:
    assert surroundings(DeviceKind.HOST, 1, {"CUDA_VISIBLE_DEVICES": "0"})["CUDA_VISIBLE_DEVICES"] == ""
    assert surroundings(DeviceKind.CUDA, 1, {"CUDA_VISIBLE_DEVICES": "0"})["CUDA_VISIBLE_DEVICES"] == "0"


def test_engines_get_no_secrets() -> None:
    made = surroundings(DeviceKind.HOST, 1, {"HF_TOKEN": "hf_x", "HELIOS_CLUSTER__KEY": "0123456789abcdef"})
    assert "HF_TOKEN" not in made
    assert {name for name in made if name.startswith("HELIOS_")} == {"HELIOS_ZYGOTE"}


def test_by_default_one_core_is_left_to_everything_else() -> None:
    assert int(surroundings(DeviceKind.HOST, None, {})["OMP_NUM_THREADS"]) >= 1


def test_engines_on_gpus_number_them_as_nvml_does_and_may_compile() -> None:
    made = surroundings(DeviceKind.CUDA, None, {})
    assert made["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "TORCH_COMPILE_DISABLE" not in made
    assert "OMP_NUM_THREADS" not in made


def test_nothing_is_fetched_or_reported_whatever_the_daemon_may_do() -> None:
    made = surroundings(DeviceKind.CUDA, None, {"HF_HUB_OFFLINE": "0", "VLLM_LOGGING_LEVEL": "INFO"})
    assert made["HF_HUB_OFFLINE"] == "1"
    assert made["VLLM_NO_USAGE_STATS"] == "1"
    assert made["VLLM_LOGGING_LEVEL"] == "INFO", "the operator's wish"
