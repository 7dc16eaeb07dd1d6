"""Decide from evidence which shift a model was trained with; its weights do not show it.

Evidence is either logits that the user's own model gave for some inputs, or labelled images. It is
always weighed under both semantics, whichever was requested: a choice that the evidence
contradicts is refused, with both figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp, lgamma, log
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from s2mlp_deploy.data.arrays import fit_float32, read_arrays
from s2mlp_deploy.data.image_stream import Images, portions
from s2mlp_deploy.data.labels import AS_TEXT
from s2mlp_deploy.errors import DataError, EvidenceError, UsageError
from s2mlp_deploy.gate.distance import compare, leading_class
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.report import Evidence
from s2mlp_deploy.schema.shift import Reading, Semantics
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.schema.spec import Spec, categories
from s2mlp_deploy.system.wording import counted

SEMANTICS: tuple[Semantics, ...] = get_args(Semantics)

Run = Callable[[Reading, Array], Array]
"""Logits (samples, classes) of images (samples, channels, height, width) under given semantics, or of a network that has
no shift."""

FITS_RELATIVE_L2 = 0.02
"""Recorded logits this close are the model's own: mixed precision stays below, another shift above."""

CLEARLY_CLOSER = 10.0
"""Where both fit, the better must be this many times closer to be the one that fits."""

_REFUTED = ("neither semantics", "the network does not")
"""The first words of a reason that refutes every reading of the checkpoint."""

SIGNIFICANCE = 0.01
"""Labelled images decide where chance would give such a difference less often than this."""


def decide(
    requested: Semantics | Literal["auto"] | None, evidence: Iterable[Evidence], declared: Semantics | None = None
) -> Semantics:
    """The semantics to export: the one requested, else the one that the layout declared, else the paper's, unless
    evidence contradicts it; for ``auto`` the one that evidence shows.

    Raises:
        UsageError: for ``auto`` without evidence.
        EvidenceError: where evidence fits neither semantics, contradicts the request or itself, or
            (for ``auto``, where no other evidence does) cannot tell them apart.
    """
    found = list(evidence)
    stated: Semantics = declared or "paper" if requested in (None, "auto") else requested  # type: ignore[assignment]
    supported = {e.supports for e in found if e.supports}
    if not found:
        if requested == "auto":
            raise UsageError(
                "--shift-semantics auto needs evidence: give --reference (inputs and logits recorded from your model) or "
                "--data (labelled images)"
            )
        return stated
    for e in found:
        if e.supports is None and (_refuted(e) or (requested == "auto" and not supported)):
            raise EvidenceError(
                f"the shift semantics cannot be decided: {e.reason} ({e}). docs/export.md shows how a reference is recorded"
            )
    if len(supported) > 1:
        raise EvidenceError("the reference and the images contradict each other: " + "; ".join(map(str, found)))
    choice = next((s for s in supported if s != "none"), None)
    if choice is None:
        # For auto this was refused above; otherwise nothing contradicts the stated semantics.
        return stated
    if requested != "auto" and stated != choice:
        who = (
            f"--shift-semantics {requested}"
            if requested
            else f"the {declared} semantics that the layout declares"
            if declared
            else "the paper's shift, which is the default,"
        )
        raise EvidenceError(
            f"{who} is contradicted by the evidence: {'; '.join(map(str, found))}. The model was "
            f"trained with {choice} semantics: pass --shift-semantics {choice}, or auto"
        )
    return choice


def require(evidence: Iterable[Evidence]) -> None:
    """Refuse a network without a shift that the evidence contradicts.

    Raises:
        EvidenceError: where it does.
    """
    for e in evidence:
        if _refuted(e):
            raise EvidenceError(f"the evidence contradicts the checkpoint as it was read: {e.reason} ({e})")


def _refuted(evidence: Evidence) -> bool:
    return evidence.supports is None and evidence.reason.startswith(_REFUTED)


def readings(spec: Spec) -> tuple[Reading, ...]:
    """How evidence about ``spec`` is read: under each possible semantics, or ``none`` without a shift."""
    return spec.possible_semantics if spec.shifts else ("none",)


def _none_of(possible: Sequence[Reading], verb: str, infinitive: str) -> str:
    """The first words of a reason that refutes the ``possible`` readings."""
    return f"the network does not {infinitive}" if "none" in possible else f"neither semantics {verb}"


def weigh_reference(
    path: Path, spec: Spec, run: Run, explain: Callable[[Array, Array], str | None] | None = None
) -> Evidence:
    """Compare the logits recorded in ``path`` with what each semantics gives for its inputs.

    Where neither gives them, ``explain`` may name a structure that does.

    Raises:
        DataError: where the file is not such a recording, or does not fit the model.
    """
    images, recorded = read_reference(path, spec)
    possible = readings(spec)
    measured = {s: compare(run(s, images), recorded).relative_l2 for s in possible}
    fitting = those_that_fit(measured)
    supports: Reading | None = None
    if not fitting:
        neither = f"{_none_of(possible, 'gives', 'give')} the recorded logits"
        explanation = explain(images, recorded) if explain else None
        reason = f"{neither}, {explanation}" if explanation else f"{neither}{_causes(spec, tried=explain is not None)}"
    elif len(fitting) > 1:
        reason = "both semantics give the recorded logits; record varied images, not constant ones"
    else:
        (supports,) = fitting
        whose = "the network" if supports == "none" else f"{supports} semantics"
        reason = f"the recorded logits are those of {whose}"
    return Evidence("reference", "relative L2", measured, len(images), supports, reason)


def those_that_fit(measured: Mapping[Reading, float]) -> tuple[Reading, ...]:
    """The readings that give recorded outputs, by their relative L2 from them, the nearest first: one alone where it is
    clearly closer than all others."""
    best, *others = sorted(measured, key=lambda reading: measured[reading])
    if not measured[best] <= FITS_RELATIVE_L2:
        return ()
    rivals = (r for r in others if measured[r] <= FITS_RELATIVE_L2)
    return (best, *(r for r in rivals if measured[r] < CLEARLY_CLOSER * max(measured[best], 1e-7)))


def _causes(spec: Spec, *, tried: bool) -> str:
    """Why a network may not give logits that were recorded, where no structure that was ``tried`` gives them."""
    if not spec.shifts:
        return ": other preprocessing, other weights, or another model"
    others = ", nor does another order of directions, border, norm, activation or patch stride" if tried else ""
    return (
        f"{others}: other preprocessing, other weights, or another model; or code that shifts in place recorded them on "
        "several threads or on a GPU, where it races: record on a CPU after torch.set_num_threads(1)"
    )


def read_reference(path: Path, spec: Spec) -> tuple[Array, Array]:
    """``input`` (samples, channels, height, width) float32 and ``logits`` (samples, classes) of ``path``.

    Raises:
        DataError: where the file is not a .safetensors or .npz with both, or they do not fit.
    """
    arrays = read_arrays(path)
    if missing := {"input", "logits"} - arrays.keys():
        raise DataError(
            f"{path} lacks {' and '.join(sorted(missing))}; it holds {', '.join(sorted(arrays)) or 'nothing'}"
        )
    images, logits = arrays["input"], arrays["logits"]
    expected = f"input [samples, {spec.in_channels}, height, width] and logits [samples, {spec.classes}]"
    if (
        images.ndim != 4
        or images.shape[1] != spec.in_channels
        or logits.shape != (len(images), spec.classes)
        or not len(images)
        or images.dtype.kind != "f"
        or logits.dtype.kind != "f"
    ):
        raise DataError(
            f"{path} holds input {list(images.shape)} {images.dtype} and logits {list(logits.shape)} {logits.dtype}: "
            f"expected floating-point {expected}"
        )
    if not (fit_float32(images) and np.isfinite(logits).all()):
        raise DataError(f"{path} holds values that are NaN or infinite: record it again")
    size: Size = (images.shape[2], images.shape[3])
    if size != spec.image_size:
        raise DataError(
            f"{path} was recorded at image size {format_size(size)}, and the model is exported for "
            f"{format_size(spec.image_size)}: pass --image-size {format_size(size)}"
        )
    return images.astype(np.float32), logits


def weigh_images(
    images: Images,
    labels: Array,
    classes: int,
    run: Run,
    as_text: Array | None = None,
    possible: tuple[Reading, ...] = SEMANTICS,
) -> Evidence:
    """Compare the accuracy on ``images`` that each semantics gives.

    The images that only one of them gets right decide, by a sign test. Where there are too few to show that a model
    guesses, and too few to show that it does not, nothing is decided. ``as_text`` are the labels where folders called
    by numbers stand for the classes in their order as text (0, 1, 10, 2, …): a fit in that order alone is refused.
    ``possible`` are the semantics that the shift's border leaves room for; ``none`` without a shift.
    """
    named = _classes_named(images, run, possible)
    right = {s: named[s] == labels for s in possible}
    measured = {s: float(r.mean()) for s, r in right.items()}
    best, *others = sorted(possible, key=lambda s: -measured[s])
    won, lost = _one_sided(right[best], right[others[0]]) if others else (0, 0)
    count, total, guess = int(right[best].sum()), len(labels), 1 / categories(classes)
    guessing = binomial_tail(count, total, guess) > SIGNIFICANCE
    supports: Reading | None = None
    if as_text is not None and (fitting := _fits_better(named, right[best], as_text)) is not None:
        reason = (
            f"{_none_of(possible, 'fits', 'fit')} the folders as class numbers, but {fitting:.2%} of the images are right in another order: if "
            f"training took {AS_TEXT}"
        )
    elif guessing and guess**total <= SIGNIFICANCE >= binomial_tail(total - count, total, (1 - guess) / 2):
        # A perfect model would have shown, and one halfway between guessing and perfect is hardly ever right so seldom.
        reason = (
            f"{_none_of(possible, 'does', 'do')} better than guessing: other preprocessing (--image-size, --mean, --std), another order of classes, "
            "or another model"
        )
    elif 2 * binomial_tail(won, won + lost, 0.5) <= SIGNIFICANCE:
        supports, reason = best, f"{counted(won, 'image')} right under {best} only, {lost} under {others[0]} only"
    elif not others and not guessing:
        reason = "the model does better than guessing"
        supports, reason = best, reason if best == "none" else f"{reason}, and its border leaves {best} semantics alone"
    elif guessing:
        reason = (
            "too few images to tell whether the model does better than guessing; give more of them, or a --reference"
        )
    else:
        reason = "the images do not tell the semantics apart; give more of them, or a --reference"
    return Evidence("images", "accuracy", measured, total, supports, reason)


def _classes_named(images: Images, run: Run, possible: Sequence[Reading]) -> dict[Reading, Array]:
    """The classes (samples,) that each reading names; every image is read once for all of them."""
    found: dict[Reading, list[Array]] = {reading: [] for reading in possible}
    for portion in portions(images):
        for reading, classes in found.items():
            classes.append(leading_class(run(reading, portion)))
    return {reading: np.concatenate(classes) for reading, classes in found.items()}


def _one_sided(first: Array, second: Array) -> tuple[int, int]:
    """The number of images that are right in ``first`` only, and in ``second`` only."""
    return int((first & ~second).sum()), int((second & ~first).sum())


def _fits_better(named: Mapping[Reading, Array], right: Array, labels: Array) -> float | None:
    """The better accuracy with other ``labels``, where that is better than ``right`` by more than chance gives."""
    best = max((classes == labels for classes in named.values()), key=lambda r: int(r.sum()))
    won, lost = _one_sided(best, right)
    return float(best.mean()) if 2 * binomial_tail(won, won + lost, 0.5) <= SIGNIFICANCE else None


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X ≥ k) of n trials that succeed with probability p."""
    if k <= 0 or p >= 1:
        return 1.0
    terms = (
        lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(p) + (n - i) * log(1 - p) for i in range(k, n + 1)
    )
    return min(1.0, sum(exp(t) for t in terms))
