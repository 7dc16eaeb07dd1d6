"""The gate for networks with any inputs and outputs: run every golden case, and check each output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from s2mlp_deploy.bundle.network_golden import NetworkGolden, Tensors
from s2mlp_deploy.errors import ParityError, RuntimeMissingError
from s2mlp_deploy.gate.checks import Check, Verdict, failure
from s2mlp_deploy.runtime.session import Session, TensorSession
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.report import Distance
from s2mlp_deploy.schema.tolerance import Tolerance


def tensors_of(session: Session) -> TensorSession:
    """``session`` as one of any inputs and outputs.

    Raises:
        RuntimeMissingError: where its runtime takes images alone.
    """
    if not isinstance(session, TensorSession):
        raise RuntimeMissingError(
            "this format's sessions take images and give logits, and the network has other inputs and outputs"
        )
    return session


def gate(session: TensorSession, golden: NetworkGolden, tolerance: Tolerance, *, twice: bool = False) -> Verdict:
    """Run every golden case through ``session``; ``twice`` repeats every run (:func:`s2mlp_deploy.gate.gate.gate` explains why)."""
    checks: list[Check] = []
    distances: dict[str, Distance] = {}
    for _ in range(1 + twice):
        for case, inputs in golden.inputs.items():
            found = session.compute(inputs)
            for name, expected in golden.outputs[case].items():
                label = case if len(golden.outputs[case]) == 1 else f"{case}, {name}"
                checks += _check(label, found.get(name), expected, tolerance, distances)
    return Verdict(tuple(checks), distances)


def require(session: TensorSession, golden: NetworkGolden, tolerance: Tolerance, cause: str | None = None) -> Verdict:
    """Run :func:`gate` and refuse an artifact that fails it.

    Raises:
        ParityError: where a check fails; with ``cause`` where the reason is known.
    """
    verdict = gate(session, golden, tolerance)
    if not verdict.passed:
        raise ParityError(failure(verdict, cause))
    return verdict


def _check(
    label: str, found: Array | None, expected: Array, tolerance: Tolerance, distances: dict[str, Distance]
) -> Iterator[Check]:
    same = found is not None and found.shape == expected.shape and found.dtype == expected.dtype
    yield Check(label, "shape and dtype", float(same), 1.0, same)
    if found is None or not same:
        return
    distance = compare(found, expected)
    worst = distances.get(label)
    if worst is None or not distance.relative_l2 <= worst.relative_l2:
        distances[label] = distance
    limit = tolerance.relative_l2 if expected.dtype.kind == "f" else 0.0
    yield Check(label, "relative L2", distance.relative_l2, limit, distance.relative_l2 <= limit)


def compare(actual: Array, expected: Array) -> Distance:
    """The distance of the worst sample (entry of the first axis) of two arrays of one shape, relative to the root mean square
    size of ``expected``'s samples. It is infinite where a value is not finite in one of them alone."""
    a, e = (np.asarray(x, np.float64).reshape(len(x) if x.ndim else 1, -1) for x in (actual, expected))
    plain = np.isfinite(e)
    if not np.array_equal(a[~plain], e[~plain], equal_nan=True) or not np.isfinite(a[plain]).all():
        return Distance(len(e), float("inf"), -1.0, float("inf"), None)
    a, e = np.where(plain, a, 0), np.where(plain, e, 0)
    size = max(float(np.sqrt(np.mean(np.square(e).sum(1)))) if e.size else 0.0, float(np.finfo(np.float64).tiny))
    missed = a - e
    with np.errstate(over="ignore"):
        relative = float((np.linalg.norm(missed, axis=1) / size).max()) if e.size else 0.0
    norms = float(np.linalg.norm(a) * np.linalg.norm(e))
    cosine = float((a * e).sum()) / norms if norms else float(not missed.any())
    return Distance(len(e), relative, cosine, float(np.abs(missed).max()) if e.size else 0.0, None)


def worst(actual: Tensors, expected: Tensors) -> float:
    """The largest relative L2 of any output; infinite where one is missing or of another shape or type."""
    return max(
        compare(actual[name], array).relative_l2
        if name in actual and actual[name].shape == array.shape and actual[name].dtype == array.dtype
        else float("inf")
        for name, array in expected.items()
    )


def different_bits(actual: Tensors, expected: Tensors) -> Mapping[str, str]:
    """The outputs whose bits differ, and how, in words."""
    found = {}
    for name, want in expected.items():
        got = actual.get(name)
        if got is None or got.shape != want.shape or got.dtype != want.dtype:
            shown = "missing" if got is None else f"{list(got.shape)} {got.dtype}"
            found[name] = f"{name} is {shown}, expected {list(want.shape)} {want.dtype}"
        elif got.tobytes() != want.tobytes():
            wrong = int((got != want).sum())
            found[name] = f"{name} differs in {wrong:,} of {want.size:,} values"
    return found
