"""Weigh inputs and outputs that were recorded from the user's own model: which shift was trained?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from s2mlp_deploy.bundle.network_golden import fits
from s2mlp_deploy.data.arrays import read_arrays
from s2mlp_deploy.errors import BundleError, DataError, EvidenceError, UsageError
from s2mlp_deploy.gate import network_gate
from s2mlp_deploy.gate.shift_evidence import those_that_fit
from s2mlp_deploy.pipeline.repair.trial import Trial
from s2mlp_deploy.pipeline.request import RequestedSemantics
from s2mlp_deploy.runtime.session import TensorSession
from s2mlp_deploy.schema.report import Evidence
from s2mlp_deploy.schema.shift import Reading, Semantics
from s2mlp_deploy.schema.tensor_entry import TensorEntry

RACES = (
    "code that shifts in place recorded them on several threads or on a GPU, where it races: record on a CPU after "
    "torch.set_num_threads(1)"
)


def read(path: Path, inputs: Sequence[TensorEntry], outputs: Sequence[TensorEntry]) -> Trial:
    """The inputs, and the outputs, in the file at ``path``, in the types of the network's; not all outputs need be there.

    Raises:
        DataError: where a name or a shape is not the network's, or a value is not finite.
    """
    arrays = read_arrays(path)
    expected = f"{_listed(inputs)} and {_listed(outputs)}"
    known = {entry.name: entry for entry in (*inputs, *outputs)}
    if missing := [entry.name for entry in inputs if entry.name not in arrays]:
        raise DataError(
            f"{path} lacks {', '.join(missing)}: expected the network's inputs and outputs by name, {expected}"
        )
    if unknown := sorted(arrays.keys() - known.keys()):
        raise DataError(f"{path} holds {', '.join(unknown)}, which the network does not have: expected {expected}")
    if not any(entry.name in arrays for entry in outputs):
        raise DataError(f"{path} holds no output of the network: expected {_listed(outputs)}")
    typed = {}
    for name, array in arrays.items():
        entry = known[name]
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{path} holds values in {name} that are NaN or infinite: record it again")
        typed[name] = array.astype(entry.dtype) if array.dtype.kind == np.dtype(entry.dtype).kind else array
        if not fits(typed[name], entry) or not array.size:
            raise DataError(
                f"{path} holds {name} {list(array.shape)} {array.dtype}: expected {list(entry.shape)} {entry.dtype}"
            )
    ins = {entry.name: typed[entry.name] for entry in inputs}
    return Trial(ins, {entry.name: typed[entry.name] for entry in outputs if entry.name in typed})


def distance(recorded: Trial, session: TensorSession) -> float:
    """The relative L2 distance of the outputs in ``session`` from the recorded ones, that of the worst.

    Raises:
        DataError: where the network does not run on the recorded inputs.
    """
    try:
        return network_gate.worst(session.compute(recorded.inputs), recorded.outputs)
    except BundleError as error:
        raise DataError(f"the network does not run on the recorded inputs: {error}") from error


def weigh(measured: Mapping[Reading, float], recorded: Trial) -> Evidence:
    """Decide by the distance of each reading of the overlapping statements from the recorded outputs."""
    fitting = those_that_fit(measured)
    supports: Reading | None = None
    if not fitting:
        whose = "the network does not give" if "none" in measured else "neither semantics gives"
        races = "" if "none" in measured else f"; or {RACES}"
        reason = f"{whose} the recorded outputs: other preparation, other weights, or another model{races}"
    elif len(fitting) > 1:
        reason = f"both semantics are about as near to the recorded outputs: record varied inputs; or {RACES}"
    else:
        (supports,) = fitting
        reason = "the recorded outputs are " + (
            "the network's" if supports == "none" else f"those of {supports} semantics"
        )
    samples = next(iter(recorded.inputs.values())).shape[0]
    return Evidence("reference", "relative L2", measured, samples, supports, reason)


def decide(requested: RequestedSemantics, evidence: Evidence | None) -> Semantics:
    """The semantics to write: the one that evidence shows, else the one requested, else ``paper``, as every exporter writes.

    Raises:
        UsageError: for ``auto`` without evidence.
        EvidenceError: where the evidence decides nothing, or contradicts the request.
    """
    stated: Semantics = "paper" if requested in (None, "auto") else requested  # type: ignore[assignment]
    if evidence is None:
        if requested == "auto":
            raise UsageError(
                "--shift-semantics auto needs evidence: give --reference, inputs and outputs recorded from your model"
            )
        return stated
    if evidence.supports is None:
        raise EvidenceError(f"the shift semantics cannot be decided: {evidence.reason} ({evidence})")
    if evidence.supports == "none":
        return stated
    if requested not in (None, "auto", evidence.supports):
        raise EvidenceError(
            f"--shift-semantics {requested} is contradicted by the evidence: {evidence}. The model was trained with "
            f"{evidence.supports} semantics: pass --shift-semantics {evidence.supports}, or auto"
        )
    return evidence.supports


def _listed(entries: Sequence[TensorEntry]) -> str:
    return ", ".join(f"{entry.name} {list(entry.shape)}" for entry in entries)
