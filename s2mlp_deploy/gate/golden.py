"""Golden inputs, chosen to expose errors, and the reference that the gate compares logits with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from s2mlp_deploy.bundle.golden_tensors import LARGE, Golden
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.report import Distance
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.schema.spec import Spec

NOISE_SAMPLES = 8
"""Noise inputs of models with few classes: few logits are a small sample of a rounding error."""

FEW_CLASSES = 100

LARGE_MAP: Size = (31, 33)
"""The last feature map of the large size: its image is 496 by 528 for a patch of 16."""

TRACE_POSITIONS = 16
"""Positions of each feature map whose values are kept, for finding the layer that diverges."""


@dataclass(frozen=True)
class GoldenReference:
    """Golden tensors, and by case the distance of PyTorch's own logits from them at the artifact's precision."""

    golden: Golden
    pytorch_distances: Mapping[str, Distance]

    def for_artifact(self, inputs: Mapping[str, Array]) -> GoldenReference:
        """The same with ``inputs`` (by case) as the artifact takes them."""
        return replace(self, golden=replace(self.golden, inputs=inputs))


def make_inputs(spec: Spec, axes: Axes) -> dict[str, Array]:
    """The golden inputs for a model that serves ``axes``, by case.

    Noise at the scale of normalized images, nearly none, and far too much; images that are zero but
    for two of their borders; a constant one. Sizes other than ``spec.image_size`` are added where the model must serve them.
    """
    rng = np.random.default_rng(20210614)
    c, (h, w) = spec.in_channels, spec.image_size

    def noise(samples: int, height: int, width: int) -> Array:
        return rng.standard_normal((samples, c, height, width), dtype=np.float32)

    border = np.zeros((2, c, h, w), np.float32)
    ph, pw = spec.patch
    edges = noise(2, h, w)
    for i, where in ((0, np.s_[:, :ph]), (0, np.s_[:, :, :pw]), (1, np.s_[:, -ph:]), (1, np.s_[:, :, -pw:])):
        border[i][where] = edges[i][where]
    cases = {
        "noise": noise(NOISE_SAMPLES if spec.classes < FEW_CLASSES else 1, h, w),
        "faint": noise(1, h, w) * np.float32(0.02),
        "loud": noise(1, h, w) * np.float32(5),
        "border": border,
        "constant": np.ones((1, c, h, w), np.float32),
    }
    if axes.size is None:
        for size in _other_sizes(spec):
            cases[f"noise-{format_size(size)}"] = noise(1, *size)
        if large := _large_size(spec):
            cases[f"{LARGE}-{format_size(large)}"] = 1 + noise(1, *large) * np.float32(0.1)
    return cases


def _other_sizes(spec: Spec) -> Iterator[Size]:
    """A larger size that is not square, the smallest that gives a map of 1 by 2, and one as tall and as narrow as those."""
    sh, sw = spec.reduction
    h, w = spec.image_size
    yield h + sh, w + 2 * sw
    yield sh, 2 * sw
    yield h + sh, 2 * sw


def _large_size(spec: Spec) -> Size | None:
    """The size that gives a last map of LARGE_MAP; None where the model's own is no smaller."""
    (h, w), (own_h, own_w), (rows, columns) = LARGE_MAP, spec.map_sizes(spec.image_size)[-1], spec.reduction
    return None if own_h * own_w >= h * w else (h * rows, w * columns)


def trace_positions(size: Size) -> tuple[Array, Array]:
    """(rows, columns) of the sampled positions of a map of ``size``: corners, edges and interior."""
    height, width = size
    count = min(TRACE_POSITIONS, height * width)
    corners = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)]
    rng = np.random.default_rng(height * 65536 + width)
    others = [divmod(int(i), width) for i in rng.permutation(height * width)]
    chosen = list(dict.fromkeys([*corners, *others]))[:count]
    rows, columns = zip(*chosen, strict=True)
    return np.array(rows), np.array(columns)


def sample_map(x: Array) -> Array:
    """The sampled positions of one feature map (height, width, channels): (positions, channels)."""
    rows, columns = trace_positions((x.shape[0], x.shape[1]))
    return np.ascontiguousarray(x[rows, columns])
