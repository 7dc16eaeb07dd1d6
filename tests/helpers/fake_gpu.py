"""A stand-in for a GPU, as the benchmarks of PyTorch see one: it computes on the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor


@dataclass
class Recorded:
    """A GPU that is none: it computes on the processor, counts moments on its own clock, and records what it is asked for."""

    captures: bool = True
    calls: list[str] = field(default_factory=list)
    name = "cpu"

    def settle(self) -> None:
        self.calls.append("settle")

    def mark(self) -> float:
        self.calls.append("mark")
        return self.calls.count("mark") ** 2 / 1e3

    def host_buffer(self, shape: Sequence[int]) -> Tensor:
        self.calls.append("host_buffer")
        return torch.empty(*shape)

    def capture(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Like a graph, it runs the same computation on the same memory, and gives the same tensor."""
        self.calls.append("capture")
        result = compute()

        def replay() -> Tensor:
            self.calls.append("replay")
            return result.copy_(compute())

        return replay


class OnWallClock(Recorded):
    """The same, whose moments are the processor's."""

    def mark(self) -> float:
        return time.perf_counter()


def pretend(monkeypatch: pytest.MonkeyPatch) -> OnWallClock:
    """Make the benchmarks find a GPU: PyTorch and ONNX files for ``cuda`` run on the processor, in its place."""
    from s2mlp_bench import backends, benchmark
    from s2mlp_bench.pytorch import backend, products
    from s2mlp_bench.roofline import lower_bound, peaks, roofline
    from s2mlp_deploy.formats import onnx
    from s2mlp_deploy.runtime.cuda_session import CudaSession

    gpu = OnWallClock()
    for module in (backend, products):
        monkeypatch.setattr(module, "place_of", lambda point: gpu)
    for module in (benchmark, lower_bound):
        monkeypatch.setattr(module, "no_gpu", lambda: None)
    for module in (backends, onnx):
        monkeypatch.setattr(
            module, "open_session", lambda path, loading: CudaSession(path, replace(loading, provider="cpu"))
        )
    monkeypatch.setattr(roofline, "copy_rate", lambda place: 4.8e12)
    monkeypatch.setattr(peaks, "LARGE", (8, 8, 8))
    return gpu
