"""How many kernels a run starts on a GPU, by PyTorch's profiler, which sees those of every library in the process."""

from __future__ import annotations

from contextlib import suppress

from s2mlp_bench.pytorch.place import no_gpu
from s2mlp_deploy.runtime.session import Session
from s2mlp_deploy.schema.array import Array

COPIES = ("Memcpy", "Memset")
"""What the profiler calls the copies that are no kernels."""


def count_kernels(session: Session, images: Array) -> int | None:
    """The kernels of one run on ``images``, those of a CUDA graph one by one; None where no profiler counts them."""
    if no_gpu():
        return None
    with suppress(RuntimeError, AssertionError):  # where a profiler is already attached, or must not be
        import torch
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            session.run(images)
            torch.cuda.synchronize()
        on_device = [event.name for event in recorded.events() or () if event.device_type.name == "CUDA"]
        return len([name for name in on_device if not name.startswith(COPIES)])
    return None
