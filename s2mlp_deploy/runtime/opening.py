"""Open a model in ONNX Runtime: one function for every execution provider."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.runtime.cuda_session import CudaSession
from s2mlp_deploy.runtime.onnxruntime import DEFAULT, RESTING, Loading, OnnxSession
from s2mlp_deploy.runtime.session import Placement


def open_session(path: Path, loading: Loading = DEFAULT) -> OnnxSession:
    """The model at ``path`` as a session of its provider.

    Raises:
        RuntimeMissingError: where ONNX Runtime, its provider or its device is not here, or cannot run the whole model.
        BundleError: where ONNX Runtime cannot load the model.
    """
    if loading.provider == "cuda":
        return CudaSession(path, replace(loading, cuda_graph=True))
    return OnnxSession(path, loading)


def placed(loading: Loading, placement: Placement) -> Loading:
    """``loading`` with all that ``placement`` gives; its threads rest between runs.

    Raises:
        UsageError: for a GPU, or TF32, where the model is not to run on CUDA.
    """
    given = {name: value for name, value in vars(placement).items() if value is not None}
    found = replace(loading, config={**loading.config, **RESTING}, **given)
    if found.provider != "cuda" and (unused := [o for o in placement.given if o in ("--device", "--tf32")]):
        raise UsageError(f"{', '.join(unused)}: for --provider cuda, and this runs on {found.provider}")
    return found
