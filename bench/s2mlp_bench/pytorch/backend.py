"""A network in PyTorch, as a backend: eager, compiled, or captured by hand as a CUDA graph."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from s2mlp_bench.pytorch.place import Place, place_of
from s2mlp_bench.pytorch.session import DeviceSession, ProcessorSession
from s2mlp_deploy.errors import UsageError

if TYPE_CHECKING:
    from s2mlp_bench.candidate import Point
    from s2mlp_deploy.runtime.session import Session
    from s2mlp_deploy.schema.precision import FloatType

TORCH = ("torch",)

Way: TypeAlias = Literal["eager", "compile", "cudagraph"]


@dataclass(frozen=True)
class TorchBackend:
    """The model in PyTorch, from a directory with ``spec.json`` and ``weights.pt``, in one of three ways.

    ``dtype`` is that of weights and computation; images and logits are float32.
    """

    directory: Path
    way: Way = "eager"
    dtype: FloatType = "float32"
    modules: tuple[str, ...] = TORCH

    @property
    def size_bytes(self) -> int:
        return (self.directory / "weights.pt").stat().st_size

    def open(self, point: Point) -> Session:
        """As :meth:`Backend.open`. The first run compiles, or captures."""
        import torch

        place = place_of(point)
        if self.way == "cudagraph" and not place.captures:
            raise UsageError("torch-cudagraph is a CUDA graph, which runs on a GPU alone: add --provider cuda")
        place.settle()
        model = self._module(place).to(place.name, getattr(torch, self.dtype))
        run: Callable[[Any], Any] = self._compiled(model, place) if self.way == "compile" else model
        if not place.captures:
            return ProcessorSession(run, place, self.dtype)
        return DeviceSession(run, place, self.dtype, captured=self.way == "cudagraph")

    def _module(self, place: Place) -> Any:
        """The model with its weights. On a GPU its shift copies once; in eager mode that is the fastest."""
        import torch

        from s2mlp_bench.baselines.families import code_of
        from s2mlp_bench.baselines.naive import trained_shift
        from s2mlp_deploy.families.registry import read_spec
        from s2mlp_deploy.shift import spatial_shift as cat_of_slices

        spec = read_spec(json.loads((self.directory / "spec.json").read_bytes()))
        shift = (
            trained_shift
            if not place.captures
            else lambda x, s: cat_of_slices(x, s.offsets, border=s.border, semantics=s.semantics)
        )
        with torch.device("meta"):
            model = code_of(spec).module(spec, shift)
        weights = torch.load(self.directory / "weights.pt", weights_only=True, mmap=True)
        model.load_state_dict(weights, strict=True, assign=True)
        return model.eval().requires_grad_(False)

    def _compiled(self, model: Any, place: Place) -> Callable[[Any], Any]:
        import torch

        # Of its own, so that a first compilation is not spared by an earlier program's.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(self.directory / "compiled")
        mode = "reduce-overhead" if place.captures else "default"
        with warnings.catch_warnings():  # its own imports use what it deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            run: Callable[[Any], Any] = torch.compile(model, mode=mode)
            return run
