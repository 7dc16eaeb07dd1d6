"""The work that one run starts: operators, by ONNX Runtime's profile, and kernels on a GPU, by PyTorch's profiler, which sees those
of every library in the process."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from s2mlp_bench.pytorch.place import no_gpu
from s2mlp_deploy.runtime.session import ProfilingSession, Session
from s2mlp_deploy.schema.array import Array

COPIES = ("Memcpy", "Memset")
"""What the profiler calls the copies that are no kernels."""

_KEPT = {"TEARDOWN_CUPTI": "0", "DISABLE_CUPTI_LAZY_REINIT": "1"}
"""Without these PyTorch's profiler detaches from the GPU after each use, and CUDA graphs of before may crash at the next."""


def attach() -> None:
    """Attach PyTorch's profiler to the GPU, so that it also sees the kernels of CUDA graphs that are recorded from now on."""
    os.environ.update(_KEPT)
    if not no_gpu():
        _profiled(lambda: None)


def count(session: Session, images: Array) -> Mapping[str, Any]:
    """The work of one run on ``images``: ``kernels``, those of a CUDA graph one by one, and ``operators`` by type; None where nothing
    counts them."""
    kernels = None if no_gpu() else _profiled(lambda: session.run(images))
    operators = None
    if isinstance(session, ProfilingSession):
        operators = dict(Counter(kernel.operator for kernel in session.profile(images, 1)).most_common())
    return {"kernels": kernels, "operators": operators}


def _profiled(run: Any) -> int | None:
    """The kernels that ``run`` starts; None where the profiler sees none."""
    with suppress(RuntimeError, AssertionError):  # where a profiler is already attached, or must not be
        import torch
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            run()
            torch.cuda.synchronize()
        on_device = [event.name for event in recorded.events() or () if event.device_type.name == "CUDA"]
        return len([name for name in on_device if not name.startswith(COPIES)]) or None
    return None
