"""The gate: run an artifact on every golden input and check its logits. Nothing is published without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.gate import run_plan
from s2mlp_deploy.gate.checks import QUANTIZED_ROWS, Check, Verdict, check_logits, failure, nearer_to
from s2mlp_deploy.gate.io_adapter import ArtifactIo, as_logits, class_scores
from s2mlp_deploy.runtime.session import Session, run_in_batches
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.tolerance import Tolerance


def gate(session: Session, golden: Golden, tolerance: Tolerance, io: ArtifactIo, *, twice: bool = False) -> Verdict:
    """Run every golden case through ``session`` and check its logits, or the logits that its scores stand for.

    int8 artifacts are also held to the logits of their own graph (:attr:`Golden.quantized`). Outputs are float32, or ``io.dtype``.
    ``twice`` repeats every run: a runtime may plan from the first run how to reuse memory, and be wrong from the
    second on. Otherwise one run of each image size is repeated.
    """
    measured = _Outputs()
    runs = list(run_plan.plan(golden.inputs, io.batch))
    again = runs if twice else run_plan.repeats(runs, golden.inputs, io.batch)
    for case, samples in [*runs, *again]:
        images = np.stack([golden.inputs[origin][row] for origin, row in samples])
        found = class_scores(session, images, io, golden.logits[case].shape[1])
        if found.shape != (len(samples), *golden.logits[case].shape[1:]) or found.dtype not in ("float32", io.dtype):
            measured.misshapen[case] = Check(case, "shape and dtype", 0.0, 1.0, passed=False)
        else:
            measured.add(samples, found)
    outputs, logits = measured.held_to(golden.logits, io)
    verdict = check_logits(outputs, logits, tolerance)
    outputs, quantized = measured.held_to(golden.quantized, io)
    near = (
        nearer_to(outputs[case], quantized[case], logits[case], case)
        for case in quantized
        if len(set(measured.rows[case])) >= QUANTIZED_ROWS
    )
    first = (*measured.misshapen.values(), *measured.left_out(golden.logits))
    # Samples that fill a batch up, or run again, are checked each time, and counted once.
    distances = {case: replace(d, samples=len(set(measured.rows[case]))) for case, d in verdict.distances.items()}
    return Verdict((*first, *(check for check in verdict.checks if check not in first), *near), distances)


def require(
    session: Session, golden: Golden, tolerance: Tolerance, io: ArtifactIo, cause: str | None = None
) -> Verdict:
    """Run :func:`gate` and refuse an artifact that fails it.

    Raises:
        ParityError: where a check fails; with ``cause`` where the reason is known.
    """
    verdict = gate(session, golden, tolerance, io)
    if not verdict.passed:
        raise ParityError(failure(verdict, cause))
    return verdict


def record_quantized_reference(session: Session, golden: Golden, batch: int | None) -> Golden:
    """``golden`` with the logits that the int8 graph in ``session`` gives for its inputs (:attr:`Golden.quantized`)."""
    quantized = {case: run_in_batches(session, x, batch) for case, x in golden.inputs.items()}
    return replace(golden, quantized=quantized)


@dataclass
class _Outputs:
    """The artifact's outputs by sample: scores and golden rows by case, and the cases of another shape."""

    scores: dict[str, list[Array]] = field(default_factory=dict)
    rows: dict[str, list[int]] = field(default_factory=dict)
    misshapen: dict[str, Check] = field(default_factory=dict)

    def add(self, samples: list[tuple[str, int]], found: Array) -> None:
        for (case, row), one in zip(samples, found, strict=True):
            self.scores.setdefault(case, []).append(one)
            self.rows.setdefault(case, []).append(row)

    def left_out(self, logits: Mapping[str, Array]) -> Iterator[Check]:
        """A failed check for each case of which a sample was never run."""
        for case, expected in logits.items():
            ran = len(set(self.rows.get(case, ())))
            if ran < len(expected) and case not in self.misshapen:
                yield Check(case, "samples", float(ran), float(len(expected)), passed=False)

    def held_to(self, logits: Mapping[str, Array], io: ArtifactIo) -> tuple[dict[str, Array], dict[str, Array]]:
        """Scores as logits, and the expected ``logits`` of the same rows, by case."""
        wanted = {case: logits[case][self.rows[case]] for case in logits if case in self.scores}
        found = {case: as_logits(np.stack(self.scores[case]), want, io.interface) for case, want in wanted.items()}
        return found, wanted
