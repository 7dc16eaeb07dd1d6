"""The int8 recipes: which type activations have, and whether biases and outputs are quantized, for each target.

One int8 graph does not fit all targets; a :class:`Recipe` has the types that a target runs fastest and that its
compiler accepts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from s2mlp_deploy.graph.layer import Layer
from s2mlp_deploy.schema.array import Array

LARGEST_BIAS = 2**30
"""Of 32 bits, a bias takes no more than this; integer kernels add up products in the rest, without a check."""


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value that an activation is quantized for."""

    low: float
    high: float


@dataclass(frozen=True)
class Recipe:
    """The types of a target's int8 graph.

    ``activation`` is the type of quantized activations; ``symmetric`` puts their zero point at 0.
    ``int32_bias`` quantizes biases with the product of both scales, as integer kernels add them. ``outputs`` quantizes the
    outputs of layers, too, for runtimes whose integer kernels write bytes. ``whole`` quantizes every value, not those of layers
    alone. ``between`` is the type of scales, and of all that lies between the products.
    """

    activation: type[np.uint8] | type[np.int8]
    symmetric: bool
    int32_bias: bool
    outputs: bool = False
    whole: bool = False
    between: type[np.float32] | type[np.float16] = np.float32

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and largest quantized activation; symmetric ones leave out −128."""
        info = np.iinfo(self.activation)
        return (-int(info.max) if self.symmetric else int(info.min)), int(info.max)

    def scale(self, least: Array | float) -> Array:
        """The smallest scales that :attr:`between` represents and that are not below ``least``, in float32."""
        scale = np.asarray(least, np.float32)
        if self.between is np.float32:
            return scale
        near = scale.astype(self.between)
        above = np.nextafter(near, self.between(np.inf))
        rounded: Array = np.where(near.astype(np.float32) < scale, above, near).astype(np.float32)
        return rounded

    def values(self, layers: Collection[Layer]) -> tuple[str, ...]:
        """The names of the values whose ranges quantizing ``layers`` takes, each once."""
        read = [layer.activation for layer in layers]
        return tuple(dict.fromkeys(read + [layer.name for layer in layers] if self.outputs else read))


RECIPES: dict[str, Recipe] = {
    # ONNX Runtime fuses this into QGemm, whose u8×s8 kernel uses VNNI; symmetric int8
    # activations take twice the time there.
    "x86": Recipe(np.uint8, symmetric=False, int32_bias=True),
    # ARM's dot-product instructions multiply s8×s8.
    "arm": Recipe(np.int8, symmetric=False, int32_bias=True),
    # TensorRT's parser accepts neither uint8 activations nor a quantized bias.
    "trt": Recipe(np.int8, symmetric=True, int32_bias=False),
    # LiteRT's specification of quantization: products read and write int8, and nothing is restored between them but by name.
    "litert": Recipe(np.int8, symmetric=False, int32_bias=True, outputs=True),
    # Processors that compute with integers alone take no other value.
    "litert-micro": Recipe(np.int8, symmetric=False, int32_bias=True, outputs=True, whole=True),
}
