"""The goals on a GPU, compared with the race."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from s2mlp_deploy.system.timing import estimate, ratio
from s2mlp_studies.goal import Goal
from s2mlp_studies.gpu.candidates import CAPTURED, CAPTURED_FP32, COMPILED, FUSED, HALF_IO, NO_GRAPH, OURS, OURS_FP32
from s2mlp_studies.gpu.measure import Report, compute_ms, operations_per_s
from s2mlp_studies.gpu.sheet import Row

SESSIONS = (OURS, FUSED, HALF_IO, "trt-fp16", "trt-rtx-fp16")
"""This project's, in float16."""

PYTORCH = (COMPILED, CAPTURED)
"""PyTorch's fastest ways."""

H200_MS = {"wide": 0.60, "deep": 1.20}
"""The most milliseconds at batch 1 in float16, on an H200."""


def gpu_goals(report: Report, model: str) -> list[Goal]:
    """Those of the candidates that were timed."""
    goals = [*_at_batch_1(report, model), *_at_batch_128(report, model)]
    return [goal for goal in goals if goal is not None]


def _at_batch_1(report: Report, model: str) -> Iterator[Goal | None]:
    rows = _timed(report, model, 1)
    yield _over(
        model, "batch 1, fp16: best session / best PyTorch", _best(rows, SESSIONS), _best(rows, PYTORCH), at_most=0.85
    )
    best = _best(rows, SESSIONS)
    if best and "H200" in report.gpu and model in H200_MS:
        measured = estimate(_samples(best))
        yield Goal(model, "batch 1, fp16: ms of the best session, H200", measured, at_most=H200_MS[model])
    yield _over(
        model, "batch 1, fp32: onnx-fp32 / torch-cudagraph", rows.get(OURS_FP32), rows.get(CAPTURED_FP32), at_most=1
    )
    yield _over(model, "batch 1: without CUDA graph / with", rows.get(NO_GRAPH), rows.get(OURS), at_least=2)


def _at_batch_128(report: Report, model: str) -> Iterator[Goal | None]:
    rows = _timed(report, model, 128)
    best, (peak, *_) = _best(rows, SESSIONS), [*report.of("peak", "fp16"), Row(("peak", "fp16"))]
    yield _over(model, "batch 128, fp16: best session / torch-compile", best, rows.get(COMPILED), at_most=1)
    if best and (rate := operations_per_s(best)) and "operations_per_s" in peak.figures:
        share = estimate([rate / peak.figures["operations_per_s"]])
        yield Goal(model, "batch 128, fp16: share of the measured peak", share, at_least=0.45)


def _timed(report: Report, model: str, batch: int) -> dict[str, Row]:
    return {row.about[-1]: row for row in report.of("race", model, str(batch)) if compute_ms(row) is not None}


def _best(rows: dict[str, Row], names: Sequence[str]) -> Row | None:
    key: Callable[[Row], float] = lambda row: compute_ms(row) or float("inf")  # noqa: E731
    return min((rows[name] for name in names if name in rows), key=key, default=None)


def _over(model: str, what: str, one: Row | None, other: Row | None, **limit: float) -> Goal | None:
    return None if one is None or other is None else Goal(model, what, ratio(_samples(one), _samples(other)), **limit)


def _samples(row: Row) -> list[float]:
    """Milliseconds without copies, where they are known."""
    samples: list[float] = row.figures["compute_ms"] or row.figures["samples_ms"]
    return samples
