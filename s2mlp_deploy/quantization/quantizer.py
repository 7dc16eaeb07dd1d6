"""Int8 graphs of one float32 graph, with any of its layers left in float."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.layer import Layer
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.passes.float16 import ToFloat16BetweenProducts
from s2mlp_deploy.passes.io_type import CastIo
from s2mlp_deploy.passes.quantize import Quantize
from s2mlp_deploy.passes.quantize_whole import QuantizeWhole
from s2mlp_deploy.passes.recipe import Range, Recipe
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.schema.precision import INT8


@dataclass(frozen=True)
class Quantizer:
    """A float32 graph, the ``layers`` that can be quantized, the ranges of their activations, and the target's recipe.

    Where the recipe is for the whole graph, ``layers`` is empty, since none can stay in float.
    """

    lowered: Lowered
    layers: tuple[Layer, ...]
    ranges: Mapping[str, Range]
    recipe: Recipe

    def graph(self, float_layers: Collection[str] = ()) -> Lowered:
        """The graph with every layer quantized but ``float_layers``, by name.

        Raises:
            ParityError: where the pass changed anything else. A faulty layer must not count as one that costs too much.
        """
        return self._with([layer for layer in self.layers if layer.name not in float_layers])

    def graph_of_one(self, layer: Layer) -> Lowered:
        """The graph with ``layer`` quantized alone.

        Raises:
            ParityError: as :meth:`graph`.
        """
        return self._with([layer])

    def _with(self, layers: Collection[Layer]) -> Lowered:
        whole = self.recipe.whole
        quantize = QuantizeWhole(self.ranges, self.recipe) if whole else Quantize(self.ranges, self.recipe, layers)
        model = run_passes(self.lowered.model, quantize)
        if self.recipe.between is np.float16:
            model = run_passes(model, ToFloat16BetweenProducts(), CastIo(ir.DataType.FLOAT))
        return replace(self.lowered, model=model, precision=INT8.name)
