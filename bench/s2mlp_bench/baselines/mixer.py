"""An MLP-Mixer beside an S²-MLP: of its width, depth and patch, with random weights, since speed does not depend on them."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.families.mixer import emit as family
from s2mlp_deploy.families.mixer.spec import MixerSpec
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec
from s2mlp_deploy.graph.lowered import Axes, Lowered
from s2mlp_deploy.passes.optimize import optimize
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.precision import FP32
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Spec


def refusal(spec: Spec) -> str | None:
    """Why there is no MLP-Mixer like ``spec``, in words; None where there is one."""
    if not isinstance(spec, S2MLPSpec):
        return f"an MLP-Mixer is formed like an S²-MLP, and this is a network of the family {family_of(spec).title}"
    if (count := len(spec.stages)) > 1:
        return f"an MLP-Mixer has one stage, and this S²-MLP has {count}"
    return None


def token_hidden(channels: int) -> int:
    """Width of the token-mixing MLP: half the channels, as in the paper's Mixer-S, -B and -L (table 1)."""
    return max(channels // 2, 1)


def like(spec: Spec, image_size: Size) -> MixerSpec:
    """The MLP-Mixer of the form of ``spec`` for images of ``image_size``.

    Raises:
        UsageError: where there is none.
        SpecError: where its patches do not fill the image.
    """
    if reason := refusal(spec):
        raise UsageError(f"there is no MLP-Mixer of the same form: {reason}")
    assert isinstance(spec, S2MLPSpec)
    (stage,) = spec.stages
    return MixerSpec(
        stage.embedding,
        stage.channels,
        token_hidden(stage.channels),
        stage.hidden,
        stage.depth,
        classes=spec.classes,
        image_size=image_size,
        in_channels=spec.in_channels,
    )


def emit(spec: Spec, axes: Axes, *, seed: int = 0) -> ir.Model:
    """The graph of the MLP-Mixer like ``spec`` for images of ``axes.size`` with random weights, which ``seed`` draws.

    Raises:
        UsageError: where there is no such MLP-Mixer, or ``axes`` leaves the size open.
        SpecError: where its patches do not fill the image.
    """
    mixer = like(spec, axes.size or spec.image_size)
    return family.emit(mixer, _random(mixer.parameter_shapes(), np.random.default_rng(seed)), axes)


def lower(spec: Spec, axes: Axes, *, seed: int = 0) -> Lowered:
    """:func:`emit`, after the passes that the graph of an S²-MLP goes through.

    Raises:
        UsageError, SpecError: as :func:`emit`.
    """
    mixer = like(spec, axes.size or spec.image_size)
    return Lowered(optimize(emit(spec, axes, seed=seed)), mixer, axes, "none", FP32.name)


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
