"""The device that a report is about, as data: a GPU, or the processor for a trial of the report itself."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from s2mlp_bench.candidate import Point
from s2mlp_bench.pytorch.products import Shape


@dataclass(frozen=True)
class Device:
    """``provider`` is that of ONNX Runtime, ``engines`` are the formats that are compiled for the device, ``target`` is the one of
    float16 and int8 graphs. A product of ``large`` fills the device, and so do ``copied_bytes`` its memory."""

    provider: str
    engines: tuple[str, ...]
    target: str
    large: Shape
    copied_bytes: int

    def point(self, batch: int = 1) -> Point:
        """Settings of candidates on this device."""
        return Point(batch, provider=self.provider)


DEVICES = {
    device.provider: device
    for device in (
        Device("cuda", ("trt", "trt-rtx"), "trt", (8192, 8192, 8192), 2**30),
        Device("cpu", (), "x86", (256, 256, 256), 2**24),
    )
}
"""By the name of ``--device``."""


def gpu_name() -> str:
    """The GPUs here with their driver, in words, as NVML has them, else PyTorch; "no NVIDIA GPU" where neither finds one."""
    with suppress(Exception):  # no driver, no NVML, or a GPU that does not answer
        import pynvml

        pynvml.nvmlInit()
        try:
            handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
            names = [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
            return f"{', '.join(names)}, driver {pynvml.nvmlSystemGetDriverVersion()}"
        finally:
            pynvml.nvmlShutdown()
    with suppress(Exception):  # no PyTorch, or one whose CUDA does not start
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
    return "no NVIDIA GPU"
