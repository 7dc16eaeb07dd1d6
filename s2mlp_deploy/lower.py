"""The first stage: a checkpoint as an ONNX graph in float32, which every precision starts from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from s2mlp_deploy import __version__, rewrites
from s2mlp_deploy.exporter import Lowered
from s2mlp_deploy.graph import Axes, emit
from s2mlp_deploy.lowering import Lowering
from s2mlp_deploy.manifest import SpecEntry
from s2mlp_deploy.simplify import simplify

if TYPE_CHECKING:
    from s2mlp_deploy.prepare import Prepared


def lower(prepared: Prepared, lowering: Lowering, axes: Axes) -> Lowered:
    """Emitted, folded, simplified, and described in the file's own metadata.

    Raises:
        SimplifierError: where onnxsim fails or changes the interface.
    """
    source = prepared.source
    weights = {name: tensor.numpy() for name, tensor in source.weights.items()}
    model = simplify(rewrites.fold(emit(source.spec, weights, lowering, axes)))
    model.producer_version = __version__
    model.metadata_props.update(
        {
            "s2mlp.spec": json.dumps(SpecEntry.of(source.spec).model_dump(mode="json")),
            "s2mlp.preprocessing": json.dumps(prepared.preprocessing.model_dump(mode="json")),
            "s2mlp.labels": json.dumps(source.recorded.labels),
            "s2mlp.checkpoint_sha256": source.sha256,
        }
    )
    return Lowered(model, source.spec, axes, lowering.name, "fp32")
