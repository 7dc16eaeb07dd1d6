"""Holding an artifact against the oracle: the step that nothing is published without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.gate.checks import QUANTIZED_ROWS, Check, Verdict, check_logits, nearer_to
from s2mlp_deploy.gate.distance import Distance, leading_class
from s2mlp_deploy.gate.golden import Golden
from s2mlp_deploy.gate.golden_images import Pictures
from s2mlp_deploy.gate.io_adapter import Asking, answer, as_logits
from s2mlp_deploy.runtime import session as sessions
from s2mlp_deploy.runtime.session import Description, Session
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, Interface
from s2mlp_deploy.schema.precision import precision as row_of
from s2mlp_deploy.schema.tolerance import Tolerance


@dataclass(frozen=True)
class Judgement:
    """Golden tensors, and by case the distance of PyTorch's own logits from them at the artifact's precision."""

    golden: Golden
    own: Mapping[str, Distance]


@dataclass(frozen=True)
class Judges:
    """Images that judge an artifact, PyTorch's logits of them in float32, and labels where known.

    (count, channels, height, width) float32, (count, classes) and (count,). For int8 none of them calibrated.
    ``files`` are what they were read from, where that is known.
    """

    images: Array
    float_logits: Array
    labels: Array | None
    files: tuple[Path, ...] = ()

    def pictures(self) -> Pictures:
        """Those of them that travel in the bundle. int8 is judged on these alone: it is calibrated for them."""
        labels = [None] * len(self.files) if self.labels is None else [int(label) for label in self.labels]
        return Pictures.choose(self.images, self.files, labels)


@dataclass(frozen=True)
class Judged:
    """What the gate measured (None where nothing here can), and what travels in the bundle so that a device can.

    ``description`` is what the artifact says of itself, where it was opened and does.
    """

    verdict: Verdict | None
    tolerance: Tolerance
    golden: Golden
    figures: Mapping[str, Any]
    description: Description | None = None


def judge(
    session: Session, judgement: Judgement, precision: str, batch: int | None, interface: Interface = FLOAT_LOGITS,
    dtype: str = "float32",
) -> Judged:  # fmt: skip
    """Run every golden case and hold it to the precision's tolerance; ``dtype`` is what the artifact is said to give.

    Raises:
        ParityError: where a check fails.
    """
    tolerance = tolerance_for(precision, judgement)
    verdict = gate(session, judgement.golden, tolerance, batch, interface, dtype)
    if not verdict.passed:
        raise ParityError(failure(verdict))
    figures = {
        "distances": {case: vars(d) for case, d in verdict.distances.items()},
        "pytorch_distances": {case: vars(d) for case, d in judgement.own.items()},
    }
    return Judged(verdict, tolerance, judgement.golden, figures, sessions.description_of(session))


def pending(judgement: Judgement, precision: str) -> Judged:
    """What a device will hold an artifact to that no runtime here can run."""
    own = {case: vars(d) for case, d in judgement.own.items()}
    return Judged(None, tolerance_for(precision, judgement), judgement.golden, {"pytorch_distances": own})


def hear_quantized(session: Session, judgement: Judgement, batch: int | None) -> Judgement:
    """``judgement``, and the logits that the int8 graph in ``session`` gives for its inputs (:attr:`Golden.quantized`)."""
    known = judgement.golden
    quantized = {case: sessions.run_in_batches(session, x, batch) for case, x in known.inputs.items()}
    return replace(judgement, golden=replace(known, quantized=quantized))


def gate(
    session: Session, expected: Golden, tolerance: Tolerance, batch: int | None, interface: Interface = FLOAT_LOGITS,
    dtype: str = "float32", *, twice: bool = False,
) -> Verdict:  # fmt: skip
    """Run every golden case through ``session`` and hold the logits, or what speaks for them, against the oracle's.

    At int8 also against what the graph itself gave (:attr:`Golden.quantized`). Answers are float32, or ``dtype``.
    ``twice`` runs every request again: a runtime may plan from the first run how to reuse memory, and be wrong from the
    second on. Without, one request of each image size is.
    """
    answers: dict[str, list[Array]] = {}
    rows: dict[str, list[int]] = {}
    odd: dict[str, Check] = {}
    requests = list(_requests(expected.inputs, batch))
    again = requests if twice else _again(requests, expected.inputs, batch)
    for case, asked in [*requests, *again]:
        images = np.stack([expected.inputs[origin][row] for origin, row in asked])
        given = answer(session, images, batch, interface, expected.logits[case].shape[1])
        if given.shape != (len(asked), *expected.logits[case].shape[1:]) or given.dtype not in ("float32", dtype):
            odd[case] = Check(case, "shape and dtype", 0.0, 1.0, passed=False)
            continue
        for (origin, row), one in zip(asked, given, strict=True):
            answers.setdefault(origin, []).append(one)
            rows.setdefault(origin, []).append(row)

    def held_to(logits: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        wanted = {case: logits[case][rows[case]] for case in logits if case in answers}
        return {case: as_logits(np.stack(answers[case]), want, interface) for case, want in wanted.items()}, wanted

    outputs, logits = held_to(expected.logits)
    verdict = check_logits(outputs, logits, tolerance)
    outputs, quantized = held_to(expected.quantized)
    near = (
        nearer_to(outputs[case], quantized[case], logits[case], case)
        for case in quantized
        if len(set(rows[case])) >= QUANTIZED_ROWS
    )
    first = tuple(odd.values())
    # Samples that fill a batch up, or run again, are judged each time, and counted once.
    distances = {case: replace(d, samples=len(set(rows[case]))) for case, d in verdict.distances.items()}
    return Verdict((*first, *(check for check in verdict.checks if check not in first), *near), distances)


def _requests(inputs: Mapping[str, Array], batch: int | None) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """What is asked, one after another: a case, and its samples (case and row) with others of its size behind them.

    They fill a fixed batch to its last place; where the batch is free, the first case of each size comes with as many
    as run together. Each of them is judged wherever it stands: what goes wrong may do so from some place on. And several samples of
    one size that are alone with it come in two orders: an answer that comes again shows where another is due.
    """
    seen: set[tuple[int, ...]] = set()
    for case, x in inputs.items():
        alike = [(name, row) for name, y in inputs.items() if y.shape[1:] == x.shape[1:] for row in range(len(y))]
        own = [sample for sample in alike if sample[0] == case]
        others = [sample for sample in alike if sample[0] != case]
        count = len(own)
        if batch:
            count = ceil(count / batch) * batch
        elif x.shape[1:] not in seen:
            count = max(count, min(len(alike), sessions.BATCH))
        seen.add(x.shape[1:])
        yield case, _first(count, own + others)
        if not others and len(own) > 1:
            yield case, _first(count, own[::-1])


_Requested: TypeAlias = tuple[str, list[tuple[str, int]]]


def _again(requests: Sequence[_Requested], inputs: Mapping[str, Array], batch: int | None) -> list[_Requested]:
    """The shortest request of each image size no shape of which runs more than once."""
    runs: dict[tuple[int, ...], dict[int, list[_Requested]]] = {}
    for request in requests:
        of_size = runs.setdefault(inputs[request[0]].shape[1:], {})
        of_size.setdefault(batch or len(request[1]), []).extend(
            [request] * (len(request[1]) // (batch or len(request[1])))
        )
    return [of_size[min(of_size)][0] for of_size in runs.values() if all(len(alike) == 1 for alike in of_size.values())]


def _first(count: int, samples: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """``count`` of ``samples``, over and over."""
    return [samples[i % len(samples)] for i in range(count)]


def tolerance_for(precision: str, judgement: Judgement) -> Tolerance:
    """The tolerance that follows from how far PyTorch's own run at this precision is from the oracle.

    Raises:
        ParityError: where that run overflows.
    """
    worst = max(d.relative_l2 for d in judgement.own.values())
    if not isfinite(worst):
        raise ParityError(
            f"PyTorch's own run of this checkpoint in {row_of(precision).on_gpu.outputs} overflows on the golden "
            f"inputs, so no {precision} export of it can be right: choose a wider --precision, or look for weights of absurd size"
        )
    return row_of(precision).rule.tolerance(worst)


def judge_images(
    session: Session, judges: Judges, tolerance: Tolerance, batch: int | None, asking: Asking
) -> dict[str, Any]:
    """Accuracy where there are labels, beside PyTorch's; every image must keep PyTorch's class.

    Raises:
        ParityError: where one does not.
    """
    actual = asking.logits(session, judges.images, judges.float_logits, batch, judges.files)
    verdict = check_logits({"images": actual}, {"images": judges.float_logits}, tolerance)
    if not verdict.passed:
        raise ParityError(failure(verdict))
    return {
        "count": len(judges.images),
        "accuracy": _accuracy(actual, judges.labels),
        "accuracy_pytorch": _accuracy(judges.float_logits, judges.labels),
        "top1_agreement": verdict.distances["images"].top1_agreement,
    }


def _accuracy(logits: Array, labels: Array | None) -> float | None:
    return None if labels is None else float((leading_class(logits) == labels).mean())


def run(session: Session, images: Array, batch: int | None) -> Array:
    """Logits of any number of images, in portions that fit into memory."""
    step = batch or sessions.BATCH
    portions = (images[i : i + step] for i in range(0, len(images), step))
    return np.concatenate([sessions.run_in_batches(session, portion, batch) for portion in portions])


def failure(verdict: Verdict, cause: str | None = None) -> str:
    """What failed, and the cause where it is known, in one paragraph."""
    lines = "; ".join(f"{c.case}: {c.quantity} {c.measured:.3g}, limit {c.limit:.3g}" for c in verdict.failures[:6])
    if cause:
        return f"the artifact is too far from what the checkpoint computes, so nothing was published ({lines}): {cause}"
    return (
        f"the artifact does not compute what the checkpoint computes, so nothing was published ({lines}). Please report "
        "this with the output of s2mlp-inspect CKPT --json and s2mlp-doctor"
    )
