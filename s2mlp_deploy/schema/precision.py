"""The table of precisions: one row each, with everything that depends on how exactly an artifact computes.

No other module compares the name of a precision, of a target or of an element type: it reads an attribute of the row.
docs/extending.md shows how a precision is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.schema.tolerance import Rule

FloatType: TypeAlias = Literal["float32", "float16", "bfloat16"]
ElementType: TypeAlias = FloatType | Literal["int8"]
"""The types of a tensor's elements, as NumPy and PyTorch call them."""

_ITEM_BYTES: Mapping[ElementType, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True)
class Target:
    """A kind of processor, or a runtime on one, that graphs are written for (``--target``).

    ``passes`` rewrite the rounded graph for it, as entry points are written; ``operators`` are those of ONNX Runtime's own (domain
    com.microsoft) that they write. Other runtimes do not have these, so that a manifest records such a target.
    """

    name: str
    gpu: bool = False
    passes: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()


X86, ARM, TRT = Target("x86"), Target("arm"), Target("trt", gpu=True)

CUDA = Target(
    "cuda",
    gpu=True,
    passes=(
        "s2mlp_deploy.passes.patch_products:PatchesAsProducts",
        "s2mlp_deploy.passes.fuse_biases:FuseBiases",
    ),
    operators=("BiasGelu", "SkipLayerNormalization"),
)
"""ONNX Runtime's CUDA provider, which starts a kernel for each operator."""

LITERT = Target("litert")
"""Any processor that LiteRT runs on, whose int8 products read and write bytes."""

LITERT_MICRO = Target("litert-micro")
"""Microcontrollers and NPUs that compute with integers alone: every value of the graph is int8."""

TARGETS: Mapping[str, Target] = {target.name: target for target in (X86, ARM, TRT, CUDA, LITERT, LITERT_MICRO)}


@dataclass(frozen=True)
class Arithmetic:
    """The element types of the ``weights``, ``inputs`` and ``outputs`` of a graph's matrix products.

    ``rounding`` is the pass that gives a float32 graph these types, as an entry point is written; None where the graph
    stays as it is, or where the pass takes calibrated ranges besides the graph.
    """

    weights: ElementType
    inputs: ElementType
    outputs: FloatType
    rounding: str | None = None

    @property
    def rounds(self) -> bool:
        """Whether the graph is not the float32 graph."""
        return self.weights != "float32"

    @property
    def sums_in_float16(self) -> bool:
        """Whether products are float16, which some processors also add up in float16."""
        return self.outputs == "float16"

    @property
    def weights_overflow(self) -> bool:
        """Whether weights that float32 holds may be too large for their type."""
        return self.weights == "float16"

    @property
    def half_weights(self) -> bool:
        """Whether the weights are floats of 16 bits."""
        return self.weights in ("float16", "bfloat16")

    @property
    def widens_weights(self) -> bool:
        """Whether the weights are floats of 16 bits, cast to the wider type of the inputs when the file is loaded."""
        return self.half_weights and self.weights != self.inputs

    @property
    def item_bytes(self) -> tuple[int, int, int]:
        """Bytes of one element of a product's inputs, of its weights as they are multiplied, and of its outputs."""
        weights = self.inputs if self.widens_weights else self.weights
        return _ITEM_BYTES[self.inputs], _ITEM_BYTES[weights], _ITEM_BYTES[self.outputs]


@dataclass(frozen=True)
class Precision:
    """One row.

    Attributes:
        name: The word that ``--precision``, manifests and reports use.
        rule: How its tolerance follows from PyTorch's own distance to the reference (docs/numerics.md).
        on_gpu: The arithmetic of graphs for GPUs. PyTorch's own run, for comparison, computes in its ``outputs``.
        on_cpu: The same for CPUs; None where no runtime here computes it on a CPU.
        targets: The targets that each have a graph of their own; empty where one graph serves all.
        io_types: The element types that input and logits may have, the usual one first.
        half: The arithmetic with float16 between the products, where that can be chosen.
        calibrated: Whether the graph takes calibration images, and keeps an accuracy limit by leaving layers in float.
        quantized_at_runtime: Whether the runtime rounds activations that the graph has in float, so that only formats
            whose runtime does that offer it.
    """

    name: str
    rule: Rule
    on_gpu: Arithmetic
    on_cpu: Arithmetic | None
    targets: tuple[str, ...] = ()
    io_types: tuple[ElementType, ...] = ("float32",)
    half: Arithmetic | None = None
    calibrated: bool = False
    quantized_at_runtime: bool = False

    @property
    def rounds(self) -> bool:
        """Whether its graph differs from the float32 graph that it is made from."""
        return self.on_gpu.rounds

    @property
    def by_processor(self) -> bool:
        """Whether graphs for CPUs compute otherwise than those for GPUs."""
        return self.on_cpu not in (None, self.on_gpu)

    def arithmetic(self, target: str) -> Arithmetic:
        """The arithmetic of the graph for ``target``."""
        return self.on_cpu if self.on_cpu and self.by_processor and not TARGETS[target].gpu else self.on_gpu

    def recorded(self, target: str) -> FloatType | None:
        """The arithmetic that a manifest records for the graph for ``target``; None where all targets have the same."""
        return self.arithmetic(target).outputs if self.by_processor else None

    def read(self, recorded: str | None) -> Arithmetic:
        """The arithmetic of an artifact whose manifest records ``recorded``; where it records none, that of GPUs."""
        others = (one for one in (self.on_cpu, self.half) if one and one.outputs == recorded)
        return next(others, self.on_gpu)


_IN_FLOAT32 = Arithmetic("float32", "float32", "float32")
_IN_FLOAT16 = Arithmetic("float16", "float16", "float16", "s2mlp_deploy.passes.float16:ToFloat16")
_FLOAT16_WEIGHTS = Arithmetic("float16", "float32", "float32", "s2mlp_deploy.passes.float16_storage:StoreFloat16")
_IN_BFLOAT16 = Arithmetic("bfloat16", "bfloat16", "bfloat16", "s2mlp_deploy.passes.bfloat16:ToBfloat16")
_INT8_WEIGHTS = Arithmetic("int8", "float32", "float32", "s2mlp_deploy.passes.int8_storage:StoreInt8")
_IN_INT8 = Arithmetic("int8", "int8", "float32")  # quantization/int8.py; between the layers it computes in float32
_IN_INT8_AND_FLOAT16 = Arithmetic("int8", "int8", "float16")

FP32 = Precision("fp32", Rule(factor=8, floor=2.0**-23, top1_agreement=1.0), _IN_FLOAT32, _IN_FLOAT32)
FP16 = Precision(
    "fp16",
    Rule(factor=4, floor=2.0**-10, top1_agreement=1.0),
    on_gpu=_IN_FLOAT16,
    on_cpu=_FLOAT16_WEIGHTS,
    targets=(X86.name, ARM.name, TRT.name, CUDA.name),
    io_types=("float32", "float16"),
)
BF16 = Precision("bf16", Rule(factor=4, floor=2.0**-7, top1_agreement=1.0), _IN_BFLOAT16, None)
INT8 = Precision(
    "int8",
    Rule(factor=1, floor=0.1, top1_agreement=1.0),  # PyTorch has no int8 to compare with: the floor alone counts
    on_gpu=_IN_INT8,
    on_cpu=_IN_INT8,
    targets=(X86.name, ARM.name, TRT.name, LITERT.name, LITERT_MICRO.name),
    half=_IN_INT8_AND_FLOAT16,
    calibrated=True,
)
INT8W = Precision(
    "int8w",
    Rule(factor=1, floor=0.1, top1_agreement=1.0),  # as INT8
    on_gpu=_INT8_WEIGHTS,
    on_cpu=_INT8_WEIGHTS,
    quantized_at_runtime=True,
)

PRECISIONS: Mapping[str, Precision] = {row.name: row for row in (FP32, FP16, BF16, INT8, INT8W)}
"""All precisions by name, in the order in which help and reports list them."""

QUANTIZED_AT_RUNTIME = tuple(row.name for row in PRECISIONS.values() if row.quantized_at_runtime)
"""The precisions that a format offers only where its runtime quantizes activations as they come."""

ON_CPUS = tuple(row.name for row in PRECISIONS.values() if row.on_cpu and not row.quantized_at_runtime)
"""The precisions that any runtime computes on CPUs."""

ON_GPUS = tuple(row.name for row in PRECISIONS.values() if not row.quantized_at_runtime)
"""The precisions that compilers for GPUs take."""


def precision(name: str) -> Precision:
    """The row called ``name``.

    Raises:
        UsageError: where there is none.
    """
    if name not in PRECISIONS:
        raise UsageError(f"there is no precision {name!r}: expected {' or '.join(PRECISIONS)}")
    return PRECISIONS[name]


def having(attribute: Callable[[Precision], object]) -> str:
    """The names of all precisions that have an attribute, for messages: ``fp16 and int8``."""
    return " and ".join(row.name for row in PRECISIONS.values() if attribute(row))
