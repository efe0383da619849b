"""The environment that numerical results depend on: versions, devices, threads and switches.

Only the settings named here are recorded, since other environment variables may hold secrets.
"""

import os
from functools import cache

import torch

_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_CBWR", "OPENBLAS_NUM_THREADS", "WORLD_SIZE"),
    *("CUBLAS_WORKSPACE_CONFIG", "CUDA_LAUNCH_BLOCKING", "NVIDIA_TF32_OVERRIDE"),
    *("NCCL_ALGO", "NCCL_PROTO", "NCCL_MIN_NCHANNELS", "NCCL_MAX_NCHANNELS"),
    *("PYTHONHASHSEED", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "ATEN_CPU_CAPABILITY"),
)


def environment() -> dict[str, str]:
    """The current settings, by name."""
    found = dict(_of_the_machine())
    found["threads"] = str(torch.get_num_threads())
    found["deterministic"] = str(torch.are_deterministic_algorithms_enabled())
    found["matmul_precision"] = torch.get_float32_matmul_precision()
    found["autocast"] = str(torch.is_autocast_enabled("cpu"))
    found["cudnn.benchmark"] = str(torch.backends.cudnn.benchmark)
    found["cudnn.deterministic"] = str(torch.backends.cudnn.deterministic)
    found["cudnn.allow_tf32"] = str(torch.backends.cudnn.allow_tf32)
    return found | {name: os.environ[name] for name in _VARIABLES if name in os.environ}


@cache
def _of_the_machine() -> tuple[tuple[str, str], ...]:
    found = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
    if torch.version.cuda:
        found["cuda"], found["cudnn"] = torch.version.cuda, str(torch.backends.cudnn.version())
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()
        found["devices"] = str(torch.cuda.device_count())
    return tuple(found.items())
