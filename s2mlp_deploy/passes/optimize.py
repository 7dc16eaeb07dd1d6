"""The passes that every emitted graph goes through, whatever its precision."""

from __future__ import annotations

import onnx_ir as ir

from s2mlp_deploy.passes.canonicalize import Canonicalize
from s2mlp_deploy.passes.fold_layernorm import FoldLayerNormAffineIntoGemm
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.passes.simplify import Simplify


def optimize(model: ir.Model) -> ir.Model:
    """The emitted float32 graph ``model``, folded, simplified and in canonical form.

    Raises:
        InternalError, ParityError: as :func:`~s2mlp_deploy.passes.run_passes.run_passes`.
        SimplifierError: where onnxsim fails or changes the interface.
        RuntimeMissingError: where onnxsim is not installed.
    """
    return run_passes(model, FoldLayerNormAffineIntoGemm(), Simplify(), Canonicalize())
