"""The first stage: a checkpoint as an ONNX graph in float32, which every precision starts from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.graph.lowered import NO_SHIFT, Axes, Lowered
from s2mlp_deploy.graph.spatial_shift import Lowering
from s2mlp_deploy.passes.optimize import optimize
from s2mlp_deploy.schema.precision import FP32

if TYPE_CHECKING:
    from s2mlp_deploy.pipeline.context import Prepared


def lower(prepared: Prepared, lowering: Lowering, axes: Axes) -> Lowered:
    """The optimized float32 graph of a checkpoint, which its metadata describes.

    Raises:
        SimplifierError: where onnxsim fails or changes the interface.
    """
    source = prepared.source
    weights = {name: tensor.numpy() for name, tensor in source.weights.items()}
    model = optimize(family_of(source.spec).emit(source.spec, weights, lowering, axes))
    model.metadata_props.update(
        {
            "s2mlp.spec": json.dumps(source.spec.to_json()),
            "s2mlp.preprocessing": json.dumps(prepared.preprocessing.model_dump(mode="json")),
            "s2mlp.labels": json.dumps(source.recorded.labels),
            "s2mlp.checkpoint_sha256": source.sha256,
        }
    )
    return Lowered(model, source.spec, axes, lowering.name if source.spec.shifts else NO_SHIFT, FP32.name)
