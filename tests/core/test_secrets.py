"""What children do not get to see."""

from heliosd.core.secrets import without_secrets


def test_tokens_and_everything_of_helios_stay_here() -> None:
    kept = {"PATH": "/bin", "HF_HOME": "/models", "VLLM_LOGGING_LEVEL": "INFO"}
    secret = {
        "HF_TOKEN": "hf_x",
        "HUGGING_FACE_HUB_TOKEN": "hf_x",
        "HELIOS_CLUSTER__KEY": "0123456789abcdef",
        "HELIOS_CLUSTER": '{"key": "0123456789abcdef"}',
        "HELIOS_STORE__HUB_TOKEN": "hf_x",
        "HELIOS_KEY": "hk-x",
    }
    assert without_secrets({**kept, **secret}) == kept
