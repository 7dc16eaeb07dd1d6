"""Sessions of PyTorch: images in and logits out as NumPy arrays, wherever it computes between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s2mlp_bench.pytorch.place import Place, between_ms
from s2mlp_deploy.runtime.session import Times

if TYPE_CHECKING:
    from torch import Tensor

    from s2mlp_deploy.schema.array import Array
    from s2mlp_deploy.schema.precision import FloatType


class ProcessorSession:
    """Computes where the images are."""

    def __init__(self, model: Callable[[Any], Any], place: Place, dtype: FloatType) -> None:
        self._model, self._place, self._dtype = model, place, dtype

    def run(self, images: Array) -> Array:
        """Logits (batch, classes), float32."""
        import torch

        self._place.settle()
        with torch.inference_mode():
            logits = self._model(torch.from_numpy(images).to(getattr(torch, self._dtype)))
            found: Array = logits.float().numpy()
        return found


@dataclass(frozen=True)
class _Step:
    """The model on images of one shape: buffers on both sides, and the computation on the device's one."""

    host: Tensor
    images: Tensor
    compute: Callable[[], Tensor]


class DeviceSession:
    """Copies images to the device, computes there, and copies logits back. Buffers are kept for each shape.

    With ``captured``, the computation is one graph a shape, which starts with one call. The cast of the images to the type of the
    model belongs to the computation, as it does in this project's graphs.
    """

    def __init__(self, model: Callable[[Any], Any], place: Place, dtype: FloatType, *, captured: bool) -> None:
        self._model, self._place, self._dtype, self._captured = model, place, dtype, captured
        self._steps: dict[tuple[int, ...], _Step] = {}

    def run(self, images: Array) -> Array:
        """Logits (batch, classes), float32."""
        import torch

        self._place.settle()
        with torch.inference_mode():
            step = self._step(images.shape)
            _copy_in(step, images)
            found: Array = step.compute().float().cpu().numpy()
        return found

    def time(self, images: Array) -> Times:
        """The times of one batch, the host waiting for each part."""
        import torch

        self._place.settle()
        with torch.inference_mode():
            step, mark = self._step(images.shape), self._place.mark
            marks = [mark()]
            _copy_in(step, images)
            marks.append(mark())
            logits = step.compute()
            marks.append(mark())
            logits.float().cpu()
            marks.append(mark())
        return Times(*between_ms(marks))

    def _step(self, shape: tuple[int, ...]) -> _Step:
        import torch

        if shape not in self._steps:
            images, dtype = torch.zeros(*shape, device=self._place.name), getattr(torch, self._dtype)

            def compute() -> Tensor:
                logits: Tensor = self._model(images.to(dtype))
                return logits

            ready = self._place.capture(compute) if self._captured else compute
            self._steps[shape] = _Step(self._place.host_buffer(shape), images, ready)
        return self._steps[shape]


def _copy_in(step: _Step, images: Array) -> None:
    import torch

    step.host.copy_(torch.from_numpy(images))
    step.images.copy_(step.host, non_blocking=True)
