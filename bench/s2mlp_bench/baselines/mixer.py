"""An MLP-Mixer beside an S²-MLP: of its width, depth and patch, with random weights, since speed does not depend on them.

Tolstikhin et al., arXiv 2105.01601, equation 1, for M positions of c channels:

    x = x + W₂·GELU( W₁·LN(x) + b₁ ) + b₂        W₁: c/2 × M, W₂: M × c/2, on x as (M, c)
    x = x + FC₄( GELU( FC₃( LN(x) ) ) )           FC₃: c → c̄, FC₄: c̄ → c

After the last block a LayerNorm, the mean over positions, a linear classifier. W₁ and W₂ depend on M: each image size is a
model of its own, with weights of its own.

The graph is as fast as ONNX Runtime's CPU provider allows. Tokens are ordered by position first, (M · batch, c), which is
(M, batch · c) in the same memory: token mixing is a 2-D Gemm for any batch with its bias in it, as channel mixing is, and
nothing is transposed.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, Stage
from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.layer import INPUT, OUTPUT
from s2mlp_deploy.graph.lowered import IR_VERSION, OPSET, Axes, Lowered
from s2mlp_deploy.passes.optimize import optimize
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.precision import FP32
from s2mlp_deploy.schema.size import Size

NORM_EPSILON = 1e-6
"""Of the paper's code (Flax's default)."""


def refusal(spec: S2MLPSpec) -> str | None:
    """Why there is no MLP-Mixer like ``spec``, in words; None where there is one."""
    if (count := len(spec.stages)) > 1:
        return f"an MLP-Mixer has one stage, and this S²-MLP has {count}"
    return None


def token_hidden(channels: int) -> int:
    """Width of the token-mixing MLP: half the channels, as in the paper's Mixer-S, -B and -L (table 1)."""
    return max(channels // 2, 1)


def parameter_shapes(spec: S2MLPSpec, image_size: Size) -> dict[str, tuple[int, ...]]:
    """Every parameter's name and shape, in the order of computation.

    Raises:
        UsageError: where there is no MLP-Mixer like ``spec``.
        SpecError: where its patches do not fill an image of ``image_size``.
    """
    stage, positions = _only_stage(spec), _positions(spec, image_size)
    c, hidden, mixing = stage.channels, stage.hidden, token_hidden(stage.channels)
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    layer("embedding", c, spec.in_channels, *stage.embedding.kernel)
    for b in range(stage.depth):
        layer(f"block{b}.norm1", c)
        layer(f"block{b}.token1", mixing, positions)
        layer(f"block{b}.token2", positions, mixing)
        layer(f"block{b}.norm2", c)
        layer(f"block{b}.fc3", hidden, c)
        layer(f"block{b}.fc4", c, hidden)
    layer("head.norm", c)
    layer("head.fc", spec.classes, c)
    return shapes


def parameters(spec: S2MLPSpec, image_size: Size) -> int:
    """Number of learnt values of the model for images of ``image_size``.

    Raises:
        UsageError, SpecError: as :func:`parameter_shapes`.
    """
    return sum(map(prod, parameter_shapes(spec, image_size).values()))


def macs(spec: S2MLPSpec, image_size: Size) -> int:
    """Multiply-adds of one image's matrix products and convolution, counted as :meth:`Spec.macs` does.

    Raises:
        UsageError, SpecError: as :func:`parameter_shapes`.
    """
    stage, positions = _only_stage(spec), _positions(spec, image_size)
    c = stage.channels
    embedding = positions * c * spec.in_channels * prod(stage.embedding.kernel)
    block = 2 * positions * c * token_hidden(c) + 2 * positions * c * stage.hidden
    return embedding + stage.depth * block + c * spec.classes


def emit(spec: S2MLPSpec, axes: Axes, *, seed: int = 0) -> ir.Model:
    """The graph for images of ``axes.size`` with random weights, which ``seed`` draws.

    Input ``input`` (batch, channels, height, width) float32, output ``logits`` (batch, classes).

    Raises:
        UsageError: where there is no MLP-Mixer like ``spec``, or ``axes`` leaves the size open.
        SpecError: where its patches do not fill the image.
    """
    if axes.size is None:
        raise UsageError("an MLP-Mixer cannot serve every image size: its token-mixing weights are for one")
    weights = _random(parameter_shapes(spec, axes.size), np.random.default_rng(seed))
    stage, positions = _only_stage(spec), _positions(spec, axes.size)
    c = stage.channels
    out = GraphBuilder()
    tokens, rows = out.constant("tokens", np.array([-1, c])), out.constant("rows", np.array([positions, -1]))

    def layer(op_type: str, x: ir.Value, of: str, name: str, **attributes: object) -> ir.Value:
        parameters = [out.constant(f"{of}.{kind}", weights[f"{of}.{kind}"]) for kind in ("weight", "bias")]
        return out.op(op_type, [x, *parameters], name, **attributes)

    def norm(x: ir.Value, name: str, label: str) -> ir.Value:
        return layer("LayerNormalization", x, name, label, axis=-1, epsilon=NORM_EPSILON)

    def fc(x: ir.Value, name: str, label: str) -> ir.Value:
        return layer("Gemm", x, name, label, transB=1)

    def mix(x: ir.Value, name: str, label: str) -> ir.Value:
        """W·x + b on x (positions, batch · c): the bias (rows, 1) is each row's own."""
        bias = out.constant(f"{name}.bias", weights[f"{name}.bias"][:, None])
        return out.op("Gemm", [out.constant(f"{name}.weight", weights[f"{name}.weight"]), x, bias], label)

    def block(x: ir.Value, layer: str, name: str) -> ir.Value:
        y = out.op("Reshape", [norm(x, f"{layer}.norm1", f"{name}/norm1"), rows], f"{name}/rows")
        y = out.op("Gelu", [mix(y, f"{layer}.token1", f"{name}/token1")], f"{name}/gelu1")
        y = out.op("Reshape", [mix(y, f"{layer}.token2", f"{name}/token2"), tokens], f"{name}/tokens")
        x = out.op("Add", [x, y], f"{name}/add1")
        y = norm(x, f"{layer}.norm2", f"{name}/norm2")
        y = out.op("Gelu", [fc(y, f"{layer}.fc3", f"{name}/fc3")], f"{name}/gelu2")
        return out.op("Add", [x, fc(y, f"{layer}.fc4", f"{name}/fc4")], name)

    images = ir.Value(name=INPUT, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(axes.shape(spec.in_channels)))
    e = stage.embedding
    x = layer("Conv", images, "embedding", "embedding/conv",
              kernel_shape=list(e.kernel), strides=list(e.stride), pads=[*e.padding, *e.padding])  # fmt: skip
    x = out.op("Transpose", [x], "embedding/positions_first", perm=[2, 3, 0, 1])
    x = out.op("Reshape", [x, tokens], "embedding")
    for b in range(stage.depth):
        x = block(x, f"block{b}", f"block{b:02d}")
    x = norm(x, "head.norm", "head/norm")
    x = out.op("Reshape", [x, out.constant("map", np.array([positions, -1, c]))], "head/map")
    x = out.op("ReduceMean", [x, out.constant("axis_of_positions", np.array([0]))], "head/mean", keepdims=0)
    logits = fc(x, "head.fc", OUTPUT)
    logits.type, logits.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([axes.batch or "batch", spec.classes])
    graph = ir.Graph(
        [images], [logits], nodes=out.nodes, initializers=list(out.initializers.values()),
        opset_imports={"": OPSET}, name="mlp_mixer",
    )  # fmt: skip
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="s2mlp-deploy")


def lower(spec: S2MLPSpec, axes: Axes, *, seed: int = 0) -> Lowered:
    """:func:`emit`, after the passes that the graph of an S²-MLP goes through.

    Raises:
        UsageError, SpecError: as :func:`emit`.
    """
    return Lowered(optimize(emit(spec, axes, seed=seed)), spec, axes, "none", FP32.name)


def _only_stage(spec: S2MLPSpec) -> Stage:
    if reason := refusal(spec):
        raise UsageError(f"there is no MLP-Mixer of the same form: {reason}")
    return spec.stages[0]


def _positions(spec: S2MLPSpec, image_size: Size) -> int:
    return prod(spec.map_sizes(image_size)[0])


def _random(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, Array]:
    """Weights that keep values near 1 through all layers, so that no arithmetic is slowed down by extreme ones."""
    weights = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape, np.float32)
        if name.endswith(".bias"):
            values *= np.float32(0.1)
        elif "norm" in name:
            values = 1 + np.float32(0.2) * values
        else:
            values *= np.float32(prod(shape[1:]) ** -0.5)
        weights[name] = values
    return weights
