"""What would not survive float16: values of weights and layers beyond its range, looked at before anything is rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.formats.registry import scratch_session
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.passes import float16
from s2mlp_deploy.passes.float16 import Arithmetic
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.choices import IoDtype
from s2mlp_deploy.system.wording import counted

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).smallest_subnormal)


def half(
    lowered: Lowered,
    inputs: Mapping[str, Array],
    *,
    arithmetic: Arithmetic,
    io_dtype: IoDtype,
    warn: Callable[[str], None],
) -> Lowered:
    """``lowered`` in float16, after looking at what becomes float16 of weights, and of layers' values on ``inputs`` (by case).

    Raises:
        ParityError: where a value overflows float16; the layers are named.
    """
    found = weight_spans(lowered.model)
    if arithmetic == "float32":
        found = {name: found[name] for name in float16.matrices(lowered.model.graph)}
    else:
        names = tuple(str(v.name) for node in lowered.model.graph for v in node.outputs if v.dtype == ir.DataType.FLOAT)
        with scratch_session(lowered) as session:
            found |= spans(lambda x: session.trace(x, names), inputs, lowered.axes.batch)
    if over := {name: s for name, s in found.items() if s.overflows}:
        raise ParityError(
            f"float16 ends at {LARGEST:.0f}, beyond which lie the values of {counted(len(over), 'layer')}: {_list(over, lambda s: f'{s.largest:.3g}')}. "
            "Export with --precision fp32 (or bf16, for TensorRT), or train with weight decay"
        )
    if under := {name: s for name, s in found.items() if s.underflows}:
        shares = _list(under, lambda s: f"{s.vanishing:.1%} of values")
        warn(
            f"float16 turns small values into zero in {counted(len(under), 'layer')}: {shares}. The gate decides whether that matters"
        )
    rounded = float16.store_float16 if arithmetic == "float32" else float16.to_float16
    return replace(lowered, model=rounded(lowered.model, io_dtype=io_dtype), precision="fp16")


def _list(found: Mapping[str, Span], figure: Callable[[Span], str], limit: int = 6) -> str:
    shown = [f"{name} ({figure(span)})" for name, span in list(found.items())[:limit]]
    return ", ".join(shown) + (f" and {len(found) - limit} more" if len(found) > limit else "")


@dataclass(frozen=True)
class Span:
    """What float16 makes of one layer's values.

    ``largest`` is the largest magnitude; ``vanishing`` the share of values other than zero that are
    too small for float16 and become zero.
    """

    largest: float
    vanishing: float

    @property
    def overflows(self) -> bool:
        """Whether a value rounds to infinity."""
        return not self.largest < LARGEST + 16  # half a step beyond the largest number rounds down

    @property
    def underflows(self) -> bool:
        """Whether more than one value in a thousand is lost."""
        return self.vanishing > 1e-3


def spans(
    observe: Callable[[Array], Mapping[str, Array]], inputs: Mapping[str, Array], batch: int | None = None
) -> dict[str, Span]:
    """Every layer's span over all ``inputs`` (cases of (samples, channels, height, width)), one sample at a time.

    ``batch`` is the size that ``observe`` insists on; a sample is repeated to fill it.
    """
    largest: dict[str, float] = {}
    counts: dict[str, tuple[int, int]] = {}
    for images in inputs.values():
        for image in images:
            for name, x in observe(np.repeat(image[None], batch or 1, axis=0)).items():
                if not x.size:  # with a dynamic size, a small map leaves nothing of some slices
                    continue
                magnitude = np.abs(x)
                nonzero = magnitude > 0
                lost, total = counts.get(name, (0, 0))
                gone = int((nonzero & (magnitude <= SMALLEST / 2)).sum())  # half a step rounds to even
                counts[name] = lost + gone, total + int(nonzero.sum())
                largest[name] = float(np.maximum(largest.get(name, 0.0), magnitude.max()))  # keeps NaN
    return {name: Span(largest[name], lost / max(total, 1)) for name, (lost, total) in counts.items()}


def weight_spans(model: ir.Model) -> dict[str, Span]:
    """The same for the weights."""
    values = {n: v.const_value for n, v in model.graph.initializers.items() if v.const_value is not None}
    arrays = {n: t.numpy() for n, t in values.items() if t.dtype == ir.DataType.FLOAT}
    return spans(lambda _: arrays, {"weights": np.zeros((1, 1, 1, 1), np.float32)})
