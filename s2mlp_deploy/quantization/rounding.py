"""Round a float32 graph to a narrower float type, after checking that no value overflows that type, and write it for its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pkgutil import resolve_name

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.passes.float16_storage import matrices
from s2mlp_deploy.passes.io_type import CastIo
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.precision import TARGETS, Arithmetic, Precision
from s2mlp_deploy.system.wording import counted, some

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).smallest_subnormal)


@dataclass(frozen=True)
class Rounding:
    """The types to round to: a precision, its arithmetic for the target, and the element type of input and logits."""

    precision: Precision
    arithmetic: Arithmetic
    io_type: str = "float32"


def round_graph(
    lowered: Lowered, rounding: Rounding, inputs: Mapping[str, Array], warn: Callable[[str], None]
) -> Lowered:
    """``lowered`` with the types of ``rounding``.

    Where these are float16, the range of weights is checked, and of the layers' values on ``inputs``, by case
    (samples, channels, height, width), if the layers become float16 too.

    Raises:
        ParityError: where a value overflows float16, naming the layers, or where the pass changed more than it should.
    """
    arithmetic = rounding.arithmetic
    if arithmetic.weights_overflow:
        check_range(lowered, arithmetic, inputs, warn)
    assert arithmetic.rounding is not None
    io_type = ir.DataType.from_numpy(np.dtype(rounding.io_type))
    model = run_passes(lowered.model, resolve_name(arithmetic.rounding)(), CastIo(io_type))
    return replace(lowered, model=model, precision=rounding.precision.name)


def write_for_target(lowered: Lowered, target: str) -> Lowered:
    """``lowered`` with the operators that ``target`` runs fastest; itself where these are no others, else a copy.

    Raises:
        ParityError: where a pass broke the graph.
    """
    passes = [resolve_name(name)() for name in TARGETS[target].passes]
    return replace(lowered, model=run_passes(lowered.model.clone(), *passes)) if passes else lowered


def _spans(lowered: Lowered, arithmetic: Arithmetic, inputs: Mapping[str, Array]) -> dict[str, Span]:
    """The spans of all values that are rounded, by name."""
    found = weight_spans(lowered.model)
    if arithmetic.widens_weights:
        return {name: found[name] for name in matrices(lowered.model.graph)}
    names = tuple(str(v.name) for node in lowered.model.graph for v in node.outputs if v.dtype == ir.DataType.FLOAT)
    with scratch_session(lowered) as session:
        return found | spans(lambda x: session.trace(x, names), inputs, lowered.axes.batch)


def check_range(
    lowered: Lowered, arithmetic: Arithmetic, inputs: Mapping[str, Array], warn: Callable[[str], None]
) -> None:
    """Refuse a model whose weights, or values on ``inputs``, overflow float16; ``warn`` of those that vanish in it.

    Raises:
        ParityError: naming the layers.
    """
    found = _spans(lowered, arithmetic, inputs)
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


def _list(found: Mapping[str, Span], figure: Callable[[Span], str]) -> str:
    return some([f"{name} ({figure(span)})" for name, span in found.items()], 6)


@dataclass(frozen=True)
class Span:
    """The range of one layer's values, compared with that of float16.

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
        """Whether more than one value in a thousand becomes zero."""
        return self.vanishing > 1e-3


def spans(
    observe: Callable[[Array], Mapping[str, Array]], inputs: Mapping[str, Array], batch: int | None = None
) -> dict[str, Span]:
    """Every layer's span over all ``inputs`` (cases of (samples, channels, height, width)), one sample at a time.

    ``batch`` is the batch size of ``observe``, where that is fixed; a sample is repeated to fill it.
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
    """The span of every float32 weight, by name."""
    values = {n: v.const_value for n, v in model.graph.initializers.items() if v.const_value is not None}
    arrays = {n: t.numpy() for n, t in values.items() if t.dtype == ir.DataType.FLOAT}
    return spans(lambda _: arrays, {"weights": np.zeros((1, 1, 1, 1), np.float32)})
