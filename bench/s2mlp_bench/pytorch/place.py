"""The places where PyTorch computes: a processor, or an NVIDIA GPU, on which computations can be captured as graphs.

Times on a GPU are the host's, which waits for each part: so sessions of ONNX Runtime time theirs, whose stream takes no events
of others, and only what is measured alike can be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from s2mlp_deploy.errors import RuntimeMissingError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from s2mlp_bench.candidate import Point

WARMUP = 3
"""Runs before a graph is captured, in which libraries choose their kernels and take their memory."""


class Place(Protocol):
    """A device of PyTorch's, called ``name`` there."""

    name: str
    captures: bool
    """Whether a computation can be captured as a graph, which starts with one call."""

    def settle(self) -> None:
        """Make the settings of this place those of the process, where others may have changed them."""
        ...

    def mark(self) -> float:
        """Seconds, when all that was started has ended."""
        ...

    def host_buffer(self, shape: Sequence[int]) -> Tensor:
        """Memory of the host, float32, from which copies to the device are fastest."""
        ...

    def capture(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """``compute`` as a graph, which gives the same tensor each time; as it is where nothing can be captured."""
        ...


@dataclass(frozen=True)
class Processor:
    """The processor, on so many ``threads`` (None: PyTorch's own choice)."""

    threads: int | None = None
    name = "cpu"
    captures = False

    def settle(self) -> None:
        import torch

        if self.threads is not None and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)  # of the whole process

    def mark(self) -> float:
        return time.perf_counter()

    def host_buffer(self, shape: Sequence[int]) -> Tensor:
        import torch

        return torch.empty(*shape)

    def capture(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return compute


@dataclass(frozen=True)
class Cuda:
    """The current NVIDIA GPU. float32 is not rounded to TF32 there."""

    name = "cuda"
    captures = True

    def settle(self) -> None:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

    def mark(self) -> float:
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    def host_buffer(self, shape: Sequence[int]) -> Tensor:
        import torch

        return torch.empty(*shape, pin_memory=True)

    def capture(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        import torch

        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARMUP):
                compute()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = compute()
        return partial(_replay, graph, result, compute)


def _replay(graph: Any, result: Tensor, keeps: object) -> Tensor:
    """Run ``graph``. ``keeps`` owns what it reads: a graph holds addresses alone, and without it would read freed memory."""
    graph.replay()
    return result


def between_ms(marks: Sequence[float]) -> list[float]:
    """Milliseconds from each of ``marks`` to the next."""
    return [(after - before) * 1e3 for before, after in pairwise(marks)]


def place_of(point: Point) -> Place:
    """Where PyTorch computes at ``point``.

    Raises:
        RuntimeMissingError: without a GPU that this PyTorch can use.
        UsageError: for a provider that PyTorch has no device for.
    """
    if point.provider in (None, "cpu"):
        return Processor(point.threads)
    if point.provider != "cuda":
        raise UsageError(f"--provider {point.provider}: PyTorch runs on cpu and cuda alone, so leave its baselines out")
    if reason := no_gpu():
        raise RuntimeMissingError(reason)
    return Cuda()


def no_gpu() -> str | None:
    """Why PyTorch has no NVIDIA GPU here, in words; None where it has one."""
    import torch

    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} was built without CUDA: install a build with it, as pip install torch does on Linux"
    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no NVIDIA GPU: nvidia-smi shows whether the driver does"
    return None
