"""The first stage: a network as an ONNX graph in float32, which every precision starts from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.graph.lowered import NO_SHIFT, Axes, Lowered
from s2mlp_deploy.graph.spatial_shift import Lowering
from s2mlp_deploy.passes.optimize import optimize
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.precision import FP32
from s2mlp_deploy.schema.spec import Spec

if TYPE_CHECKING:
    from s2mlp_deploy.pipeline.context import Prepared


def lower(spec: Spec, weights: Mapping[str, Array], lowering: Lowering, axes: Axes) -> Lowered:
    """The optimized float32 graph of ``spec`` with ``weights`` (canonical names).

    Raises:
        SimplifierError: where onnxsim fails or changes the interface.
    """
    model = optimize(family_of(spec).emit(spec, weights, lowering, axes))
    return Lowered(model, spec, axes, lowering.name if spec.shifts else NO_SHIFT, FP32.name)


def lower_checkpoint(prepared: Prepared, lowering: Lowering, axes: Axes) -> Lowered:
    """:func:`lower` of a checkpoint, which the graph's metadata describes."""
    source = prepared.source
    lowered = lower(source.spec, {name: tensor.numpy() for name, tensor in source.weights.items()}, lowering, axes)
    lowered.model.metadata_props.update(
        {
            "s2mlp.spec": json.dumps(source.spec.to_json()),
            "s2mlp.preprocessing": json.dumps(prepared.preprocessing.model_dump(mode="json")),
            "s2mlp.labels": json.dumps(source.recorded.labels),
            "s2mlp.checkpoint_sha256": source.sha256,
        }
    )
    return lowered
