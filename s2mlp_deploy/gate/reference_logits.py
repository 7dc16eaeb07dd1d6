"""Compute golden logits with the reference module in float64, and the distance of PyTorch's own run from them."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch

from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.data.image_stream import Images
from s2mlp_deploy.families.reference import ReferenceModel, activations, logits
from s2mlp_deploy.gate.distance import compare, scale_of
from s2mlp_deploy.gate.golden import GoldenReference, sample_map
from s2mlp_deploy.runtime.session import BATCH
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.precision import Arithmetic


def compute_reference(model: ReferenceModel, inputs: Mapping[str, Array]) -> GoldenReference:
    """Run the reference in float64 over ``inputs``, by case (samples, channels, height, width) float32."""
    wide, trace = _by_case(model, inputs, torch.float64)
    return compare_pytorch(model, Golden(inputs, wide, trace), torch.float32)


def compare_pytorch(model: ReferenceModel, golden: Golden, dtype: torch.dtype) -> GoldenReference:
    """``golden``, with the distance of PyTorch's own run in ``dtype`` from it."""
    own, _ = _by_case(model, golden.inputs, dtype)
    scale = scale_of(golden.logits.values())
    return GoldenReference(golden, {case: compare(own[case], golden.logits[case], scale) for case in golden.inputs})


def compare_rounded(model: ReferenceModel, golden: Golden, arithmetic: Arithmetic) -> GoldenReference:
    """``golden``, with the distance of PyTorch's own run in the types of ``arithmetic`` from it."""
    if arithmetic.widens_weights:
        model = with_rounded_matrices(model, getattr(torch, arithmetic.weights))
    return compare_pytorch(model, golden, getattr(torch, arithmetic.outputs))


def with_rounded_matrices(model: ReferenceModel, dtype: torch.dtype) -> ReferenceModel:
    """A copy of ``model`` whose matrices and convolutions are rounded to ``dtype``; it still computes in any type."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(weight.to(dtype))
    return model


def run(model: ReferenceModel, images: Images, dtype: torch.dtype = torch.float32) -> Array:
    """Logits (samples, classes) of ``images`` (samples, channels, height, width), computed in ``dtype``."""
    chunks = (torch.from_numpy(images[i : i + BATCH]).to(dtype) for i in range(0, len(images), BATCH))
    # Copied out of PyTorch's memory: small tensors that stay there keep what was freed around them from being used again.
    return np.concatenate([_numpy(logits(model, chunk)).copy() for chunk in chunks])


def _by_case(
    model: ReferenceModel, inputs: Mapping[str, Array], dtype: torch.dtype
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Logits by case, and the trace of the very first sample.

    All cases of one size run together: widening the weights takes as long as several samples.
    """
    found: dict[str, Array] = {}
    trace: dict[str, Array] = {}
    for size in dict.fromkeys(x.shape[2:] for x in inputs.values()):
        cases = {case: x for case, x in inputs.items() if x.shape[2:] == size}
        rows: list[Array] = []
        together = np.concatenate(list(cases.values()))
        for start in range(0, len(together), BATCH):
            for name, x in activations(model, torch.from_numpy(together[start : start + BATCH]).to(dtype)):
                if next(iter(inputs)) in cases and start == 0:
                    trace[name] = _sample(x)
            rows.append(_numpy(x))
        logits_of_size = np.concatenate(rows)
        for case, images in cases.items():
            found[case], logits_of_size = np.split(logits_of_size, [len(images)])
    return found, trace


def _sample(x: torch.Tensor) -> Array:
    """The sampled values of the first sample's map."""
    first = _numpy(x[0])
    return (sample_map(first) if x.ndim == 4 else first[None]).astype(np.float32)


def _numpy(x: torch.Tensor) -> Array:
    """``x`` as an array; NumPy has no bfloat16, which float32 holds exactly."""
    array: Array = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    return array
