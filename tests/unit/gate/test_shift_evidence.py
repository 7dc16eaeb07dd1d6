"""Evidence decides which shift a model was trained with, contradicts wrong choices, and says when it cannot tell."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import comb
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from helpers.support import (
    INPLACE_CHECKPOINT,
    PAPER_CHECKPOINT,
    TEST_IMAGES,
    Ran,
    random_model,
    run,
    save_checkpoint,
    small_spec,
)
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.errors import DataError, EvidenceError, UsageError
from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.gate import reference_logits, shift_evidence
from s2mlp_deploy.gate.shift_evidence import Evidence
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.shift import Semantics, Shift
from s2mlp_deploy.schema.size import Size

SPEC = small_spec()
BOTH: Sequence[Semantics] = ("paper", "inplace")
both = pytest.mark.parametrize("semantics", BOTH)


def images(count: int = 5, size: Size = SPEC.image_size, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, *size), dtype=np.float32)


def logits(semantics: Semantics, x: Array) -> Array:
    """What the small model gives for ``x`` under ``semantics``: (samples, 7) float32."""
    return reference_logits.run(random_model(SPEC.with_shift(Shift(semantics=semantics))), x)


def record(path: Path, **arrays: Array) -> Path:
    """A reference file as a user would write it, in the format that its suffix says."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
    else:
        safetensors.numpy.save_file(arrays, path)
    return path


def weigh(path: Path) -> Evidence:
    return shift_evidence.weigh_reference(path, SPEC, logits)


# Recorded logits


@both
@pytest.mark.parametrize("name", ["recorded.safetensors", "recorded.npz"])
def test_recorded_logits_decide(tmp_path: Path, name: str, semantics: Semantics) -> None:
    found = weigh(record(tmp_path / name, input=images(), logits=logits(semantics, images())))
    (other,) = set(BOTH) - {semantics}
    assert found.supports == semantics
    assert found.measured[semantics] == 0 and found.measured[other] > 0.05
    assert (found.kind, found.quantity, found.samples) == ("reference", "relative L2", 5)
    assert str(found).startswith("relative L2 over 5 recorded samples: paper ")


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_recorded_in_mixed_precision_still_decide(
    tmp_path: Path, semantics: Semantics, dtype: torch.dtype
) -> None:
    model = random_model(SPEC.with_shift(Shift(semantics=semantics)))
    with torch.autocast("cpu", dtype):
        noisy = model(torch.from_numpy(images())).half().numpy()
    found = weigh(record(tmp_path / "recorded.npz", input=images().astype(np.float64), logits=noisy))
    assert found.supports == semantics
    assert found.measured[semantics] > 1e-4


def test_logits_of_another_model_fit_neither(tmp_path: Path) -> None:
    other = reference_logits.run(random_model(SPEC, seed=1), images())
    found = weigh(record(tmp_path / "recorded.npz", input=images(), logits=other))
    assert found.supports is None and "neither" in found.reason


@pytest.mark.parametrize("value", [0.0, 1e30], ids=["zero", "huge"])
def test_logits_that_are_no_logits_fit_neither(tmp_path: Path, value: float) -> None:
    found = weigh(record(tmp_path / "recorded.npz", input=images(), logits=np.full((5, 7), value)))
    assert found.supports is None and "neither" in found.reason


@both
def test_constant_images_cannot_tell_the_semantics_apart(tmp_path: Path, semantics: Semantics) -> None:
    constant = np.ones((2, 3, 20, 28), np.float32)
    path = record(tmp_path / "recorded.npz", input=constant, logits=logits(semantics, constant))
    found = weigh(path)
    assert found.supports is None and "record varied images" in found.reason
    assert shift_evidence.decide(semantics, [found]) == semantics
    with pytest.raises(EvidenceError, match=r"both semantics give the recorded logits"):
        shift_evidence.decide("auto", [found])


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({}, "lacks input and logits; it holds other"),
        ({"input": images()}, "lacks logits; it holds input, other"),
        ({"input": images()[0], "logits": np.zeros((5, 7))}, "input [3, 20, 28]"),
        ({"input": images()[:, :1], "logits": np.zeros((5, 7))}, "input [5, 1, 20, 28]"),
        ({"input": images(), "logits": np.zeros((5, 8))}, "logits [5, 8]"),
        ({"input": images(), "logits": np.zeros((4, 7))}, "logits [4, 7]"),
        ({"input": images(), "logits": np.zeros(7)}, "logits [7]"),
        ({"input": images()[:0], "logits": np.zeros((0, 7))}, "input [0, 3, 20, 28]"),
        ({"input": images().astype(np.uint8), "logits": np.zeros((5, 7))}, "uint8"),
        ({"input": images(), "logits": np.zeros((5, 7), np.int64)}, "int64"),
        ({"input": images(), "logits": np.full((5, 7), np.nan)}, "NaN or infinite"),
        ({"input": np.full((5, 3, 20, 28), np.inf), "logits": np.zeros((5, 7))}, "NaN or infinite"),
        ({"input": images(size=(28, 20)), "logits": np.zeros((5, 7))}, "pass --image-size 28x20"),
    ],
)
@pytest.mark.parametrize("name", ["recorded.safetensors", "recorded.npz"])
def test_a_recording_that_does_not_fit_is_refused_with_what_it_holds(
    tmp_path: Path, name: str, arrays: Mapping[str, Array], problem: str
) -> None:
    path = record(tmp_path / name, other=np.zeros(3), **arrays)
    with pytest.raises(DataError) as caught:
        shift_evidence.read_reference(path, SPEC)
    assert str(path) in str(caught.value) and problem in str(caught.value)


@pytest.mark.parametrize("name", ["recorded.safetensors", "recorded.npz"])
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "folder"])
def test_a_recording_that_cannot_be_read_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    if damage == "folder":
        path.mkdir()
    elif damage == "cut":
        record(path, input=images(), logits=logits("paper", images()))
        path.write_bytes(path.read_bytes()[:-100])
    elif damage != "missing":
        path.write_text("some text" if damage == "text" else "")
    with pytest.raises(DataError, match=r"cannot read .*recorded.*expected a \.safetensors, \.npz or \.npy") as e:
        shift_evidence.read_reference(path, SPEC)
    assert "\n" not in str(e.value)


def test_a_recording_with_pickled_objects_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "recorded.npz", input=np.array([{}]), logits=np.array([{}]))
    with pytest.raises(DataError, match="cannot be loaded when allow_pickle=False"):
        shift_evidence.read_reference(tmp_path / "recorded.npz", SPEC)


# Labelled images


def outcome(right_under_paper: Sequence[int], right_under_inplace: Sequence[int], classes: int = 10) -> Evidence:
    """Evidence from images of class 1 that the two runs class as 1 where they are right, and as 0 where not."""
    right = {"paper": np.array(right_under_paper), "inplace": np.array(right_under_inplace)}

    def model(semantics: Semantics, x: Array) -> Array:
        found = right[semantics][: len(x)]
        return np.where(found, 0.25, -3.0)[:, None] if classes == 1 else np.eye(classes)[found]

    count = len(right_under_paper)
    return shift_evidence.weigh_images(np.zeros((count, 3, 4, 4), np.float32), np.ones(count, int), classes, model)


def test_labelled_images_decide() -> None:
    found = outcome([1] * 5 + [0] * 15, [1] * 18 + [0] * 2)
    assert found.supports == "inplace"
    assert found.measured == {"paper": 0.25, "inplace": 0.9}
    assert found.reason == "13 images right under inplace only, 0 under paper only"
    assert str(found) == "accuracy over 20 images: paper 25.00%, inplace 90.00%"
    assert outcome([1] * 18 + [0] * 2, [1] * 5 + [0] * 15).supports == "paper"


def test_where_the_border_leaves_one_semantics_images_decide_by_showing_more_than_guessing() -> None:
    def model(semantics: Semantics, x: Array) -> Array:
        assert semantics == "paper"
        return np.eye(10)[np.where(np.arange(len(x)) < right, 3, 4)]

    for right, supports in ((18, "paper"), (2, None)):
        given = np.zeros((20, 3, 4, 4), np.float32), np.full(20, 3), 10
        found = shift_evidence.weigh_images(*given, model, possible=("paper",))
        assert found.supports == supports and found.measured == {"paper": right / 20}


def test_images_that_both_get_right_do_not_tell_the_semantics_apart() -> None:
    found = outcome([1] * 30, [1] * 30)
    assert found.supports is None and "do not tell the semantics apart" in found.reason
    assert shift_evidence.decide("paper", [found]) == "paper"
    with pytest.raises(EvidenceError, match="cannot be decided"):
        shift_evidence.decide("auto", [found])


@pytest.mark.parametrize(("won", "decides"), [(7, False), (8, True)])
def test_a_difference_counts_from_where_chance_gives_it_less_often_than_once_in_a_hundred(
    won: int, decides: bool
) -> None:
    found = outcome([1] * 20 + [0] * won, [1] * (20 + won))
    assert (found.supports == "inplace") == decides
    assert (2 * Fraction(1, 2**won) <= Fraction(1, 100)) == decides


def test_images_at_chance_level_fit_neither() -> None:
    found = outcome([1] * 2 + [0] * 18, [0] * 17 + [1] * 3)
    assert found.supports is None and "neither semantics does better than guessing" in found.reason
    for requested in ("auto", "paper", "inplace"):
        with pytest.raises(EvidenceError, match=r"neither .*paper 10\.00%, inplace 15\.00%"):
            shift_evidence.decide(requested, [found])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("right", "total", "classes"), [(6, 6, 2), (6, 6, 1), (6, 7, 2), (3, 6, 2), (0, 6, 2), (3, 4, 3), (0, 1, 10)]
)
def test_too_few_images_to_tell_are_no_reason_to_refuse(right: int, total: int, classes: int) -> None:
    ones = [1] * right + [0] * (total - right)
    weighed = outcome(ones, ones, classes)
    assert weighed.supports is None and weighed.reason.startswith("too few images to tell")
    assert shift_evidence.decide("paper", [weighed]) == "paper"
    with pytest.raises(EvidenceError, match="cannot be decided: too few images to tell"):
        shift_evidence.decide("auto", [weighed])


@pytest.mark.parametrize(("right", "classes"), [(100, 2), (100, 1), (13, 10)])
def test_many_images_at_chance_level_are_enough_to_refuse(right: int, classes: int) -> None:
    ones = [1] * right + [0] * (200 - right)
    with pytest.raises(EvidenceError, match="neither semantics does better than guessing"):
        shift_evidence.decide("paper", [outcome(ones, ones, classes)])


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("total", [1, 2, 3, 5, 8, 13, 40])
def test_a_model_that_is_right_on_half_of_what_guessing_misses_is_not_said_to_guess(total: int, classes: int) -> None:
    right = (1 + 1 / max(classes, 2)) / 2
    refused = [
        k
        for k in range(total + 1)
        if "neither" in outcome([1] * k + [0] * (total - k), [1] * k + [0] * (total - k), classes).reason
    ]
    assert sum(comb(total, k) * right**k * (1 - right) ** (total - k) for k in refused) <= 0.01


def test_too_few_images_that_only_one_semantics_gets_right_still_decide() -> None:
    assert outcome([1] * 4 + [0] * 16, [1] * 12 + [0] * 8, 2).supports == "inplace"


@pytest.mark.parametrize("classes", [11, 12, 25, 100])
def test_classes_numbered_in_the_order_of_text_are_recognised(classes: int) -> None:
    """ImageFolder takes folders called 0 to 10 as 0, 1, 10, 2, …: two of eleven fit as numbers, which is more than guessing."""
    order = sorted(range(classes), key=str)
    as_numbers = np.repeat(np.arange(classes), 20)
    as_text = np.array([order.index(i) for i in as_numbers])

    def weighed(truth: Array, alternative: Array | None) -> Evidence:
        images = np.zeros((len(truth), 3, 4, 4), np.float32)
        return shift_evidence.weigh_images(
            images, as_numbers, classes, lambda s, x: np.eye(classes)[truth], alternative
        )

    assert "tell the semantics apart" in weighed(as_numbers, as_text).reason
    reason = weighed(as_text, as_text).reason
    assert "neither" in reason and "100.00% of the images are right in another order" in reason
    with pytest.raises(EvidenceError, match="--labels"):
        shift_evidence.decide("paper", [weighed(as_text, as_text)])


@pytest.mark.parametrize("p", [Fraction(1, 2), Fraction(1, 10), Fraction(1, 1000), Fraction(2, 3)])
@pytest.mark.parametrize("n", [1, 2, 7, 60, 1000])
def test_the_binomial_tail_is_the_exact_sum(n: int, p: Fraction) -> None:
    for k in {0, 1, n // 3, n // 2, n - 1, n}:
        exact = sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
        assert shift_evidence.binomial_tail(k, n, float(p)) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


def test_the_binomial_tail_has_its_limits() -> None:
    assert shift_evidence.binomial_tail(0, 0, 0.5) == 1
    assert shift_evidence.binomial_tail(5, 5, 1.0) == 1
    assert shift_evidence.binomial_tail(6, 5, 0.5) == 0


# Distances from a recording


@pytest.mark.parametrize(
    ("paper", "inplace", "fitting"),
    [
        (0.0199, 0.5, ("paper",)),
        (0.0201, 0.5, ()),  # neither its own numbers nor those of mixed precision
        (np.inf, 1e-6, ("inplace",)),
        (np.inf, np.inf, ()),
        (1e-3, 9.9e-3, ("paper", "inplace")),  # both fit, and neither is ten times closer
        (1.1e-2, 1e-3, ("inplace",)),
        (0.0, 9.9e-7, ("paper", "inplace")),  # float32's last digit
        (0.0, 1.1e-6, ("paper",)),
    ],
)
def test_a_recording_is_of_the_reading_that_is_near_and_clearly_nearer_than_the_other(
    paper: float, inplace: float, fitting: tuple[Semantics, ...]
) -> None:
    assert shift_evidence.those_that_fit({"paper": paper, "inplace": inplace}) == fitting


# The decision


def found(
    kind: str, supports: Semantics | None, reason: str = "the images do not tell the semantics apart"
) -> Evidence:
    measured: dict[Semantics, float] = {"paper": 0.5, "inplace": 0.75}
    return Evidence(kind, "accuracy", measured, 12, supports, reason)  # type: ignore[arg-type]


@both
def test_without_evidence_the_request_stands_and_auto_is_refused(semantics: Semantics) -> None:
    assert shift_evidence.decide(semantics, []) == semantics
    with pytest.raises(UsageError, match=r"--reference .* --data"):
        shift_evidence.decide("auto", [])


@both
def test_evidence_that_agrees_decides_and_contradicts_the_other_request(semantics: Semantics) -> None:
    (other,) = set(BOTH) - {semantics}
    agreeing = [found("reference", semantics), found("images", semantics)]
    assert shift_evidence.decide("auto", agreeing) == shift_evidence.decide(semantics, agreeing) == semantics
    with pytest.raises(
        EvidenceError, match=rf"--shift-semantics {other} is contradicted .*pass .*{semantics}, or auto"
    ):
        shift_evidence.decide(other, agreeing)


@both
def test_without_a_request_the_layouts_declaration_stands_and_else_the_papers_shift(semantics: Semantics) -> None:
    (other,) = set(BOTH) - {semantics}
    assert (
        shift_evidence.decide(None, [], semantics)
        == shift_evidence.decide(None, [found("images", None)], semantics)
        == semantics
    )
    assert shift_evidence.decide(None, []) == "paper"
    assert shift_evidence.decide(other, [], semantics) == other
    with pytest.raises(EvidenceError, match=rf"the {semantics} semantics that the layout declares is contradicted"):
        shift_evidence.decide(None, [found("reference", other)], semantics)
    assert shift_evidence.decide("auto", [found("reference", other)], semantics) == other


def test_the_default_is_contradicted_in_its_own_name() -> None:
    with pytest.raises(
        EvidenceError, match=r"the paper's shift, which is the default, is contradicted .*inplace, or auto"
    ):
        shift_evidence.decide(None, [found("reference", "inplace")])


@both
def test_one_piece_of_evidence_that_decides_is_enough(semantics: Semantics) -> None:
    assert shift_evidence.decide("auto", [found("reference", semantics), found("images", None)]) == semantics
    assert shift_evidence.decide("auto", [found("reference", None), found("images", semantics)]) == semantics


def test_evidence_that_contradicts_itself_is_refused() -> None:
    for requested in ("auto", *BOTH):
        with pytest.raises(EvidenceError, match="contradict each other"):
            shift_evidence.decide(requested, [found("reference", "paper"), found("images", "inplace")])


# Through the command


def export(tmp_path: Path, source: Path, *options: object) -> Ran:
    """Export into a folder that must stay empty unless the export succeeds."""
    (tmp_path / "out").mkdir()
    ran = run("export", source, *options, "-o", tmp_path / "out" / "bundle")
    assert (ran.code == 0) == (tmp_path / "out" / "bundle").is_dir()
    assert ran.code == 0 or not list((tmp_path / "out").iterdir())
    assert "Traceback" not in ran.err
    return ran


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "small.pt", SPEC)


@both
def test_auto_takes_what_the_reference_says_and_the_report_keeps_both_figures(
    tmp_path: Path, small: Path, semantics: Semantics
) -> None:
    path = record(tmp_path / "recorded.npz", input=images(), logits=logits(semantics, images()))
    ran = export(tmp_path, small, "--reference", path, "--shift-semantics", "auto", "--json")
    assert ran.code == 0, ran.err
    (made,) = ran.json["exports"]
    (weighed,) = made["report"]["evidence"]
    assert made["manifest"]["spec"]["shift_semantics"] == weighed["supports"] == semantics
    assert weighed["measured"].keys() == set(BOTH)
    assert "warning" not in ran.err


def test_a_choice_that_the_reference_contradicts_is_refused_with_both_distances(tmp_path: Path, small: Path) -> None:
    path = record(tmp_path / "recorded.npz", input=images(), logits=logits("inplace", images()))
    ran = export(tmp_path, small, "--reference", path, "--shift-semantics", "paper")
    assert ran.code == 1
    assert "contradicted by the evidence: relative L2 over 5 recorded samples: paper 0." in ran.err
    assert "inplace 0. The model was trained with inplace semantics" in ran.err


@pytest.mark.slow
def test_a_reference_that_fits_neither_is_refused_with_both_distances(tmp_path: Path, small: Path) -> None:
    other = reference_logits.run(random_model(SPEC, seed=1), images())
    path = record(tmp_path / "recorded.npz", input=images(), logits=other)
    ran = export(tmp_path, small, "--reference", path)
    assert ran.code == 1
    assert "neither" in ran.err and "paper " in ran.err and "inplace " in ran.err
    assert "several threads or on a GPU, where it races: record on a CPU after torch.set_num_threads(1)" in ran.err


def test_a_reference_of_constant_images_is_no_evidence_for_auto(tmp_path: Path, small: Path) -> None:
    constant = np.ones((2, 3, 20, 28), np.float32)
    path = record(tmp_path / "recorded.npz", input=constant, logits=logits("paper", constant))
    ran = export(tmp_path, small, "--reference", path, "--shift-semantics", "auto")
    assert ran.code == 1 and "record varied images" in ran.err


def test_auto_without_evidence_is_a_usage_error(tmp_path: Path, small: Path) -> None:
    ran = export(tmp_path, small, "--shift-semantics", "auto")
    assert ran.code == 2 and "needs evidence" in ran.err


def test_a_reference_of_another_size_is_bad_input_until_that_size_is_asked_for(tmp_path: Path, small: Path) -> None:
    x = images(size=(28, 36))
    path = record(tmp_path / "recorded.npz", input=x, logits=logits("inplace", x))
    options = ("--reference", path, "--shift-semantics", "auto")
    ran = run("export", small, *options, "-o", tmp_path / "bundle")
    assert ran.code == 3 and "pass --image-size 28x36" in ran.err
    assert run("export", small, *options, "--image-size", "28x36", "-o", tmp_path / "bundle").code == 0
    assert read_bundle(tmp_path / "bundle").manifest.spec.semantics == "inplace"


# The bundled checkpoints


TRAINED = {"paper": PAPER_CHECKPOINT, "inplace": INPLACE_CHECKPOINT}


@both
def test_recorded_logits_decide_for_a_trained_model(tmp_path: Path, semantics: Semantics) -> None:
    x = images(3, (28, 28))
    source = load_checkpoint(TRAINED[semantics], semantics=semantics)
    recorded = reference_logits.run(S2MLP.of(source.spec, source.weights), x)
    path = record(tmp_path / "recorded.safetensors", input=x, logits=recorded)
    ran = export(tmp_path, TRAINED[semantics], "--reference", path, "--shift-semantics", "auto", "--no-gate", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["exports"][0]["manifest"]["spec"]["shift_semantics"] == semantics


@pytest.mark.slow
def test_labelled_images_decide_for_a_model_trained_with_the_papers_shift(tmp_path: Path) -> None:
    options = ("--data", TEST_IMAGES, "--data-count", "60", "--shift-semantics", "auto", "--json")
    ran = export(tmp_path, PAPER_CHECKPOINT, *options)
    assert ran.code == 0, ran.err
    (made,) = ran.json["exports"]
    assert made["manifest"]["spec"]["shift_semantics"] == "paper"
    (weighed,) = made["report"]["evidence"]
    assert weighed["measured"]["paper"] > 0.8 > 0.6 > weighed["measured"]["inplace"]
    assert made["report"]["images"]["count"] == weighed["samples"] == 60


@pytest.mark.slow
def test_labelled_images_contradict_the_papers_shift_for_a_model_trained_in_place(tmp_path: Path) -> None:
    ran = export(tmp_path, INPLACE_CHECKPOINT, "--data", TEST_IMAGES, "--shift-semantics", "paper")
    assert ran.code == 1
    assert "contradicted by the evidence: accuracy over 200 images: paper " in ran.err
    assert "pass --shift-semantics inplace" in ran.err


@pytest.mark.slow
def test_folders_numbered_in_the_order_of_text_are_refused_with_the_remedy_that_helps(tmp_path: Path) -> None:
    """The bundled model with two more classes, as trained on folders called 0 to 11, which ImageFolder sorts as text."""
    order = sorted(range(12), key=str)
    content = torch.load(PAPER_CHECKPOINT, weights_only=False)
    head, options = content["model"], {name: getattr(content["args"], name) for name in ("img_size", "mean", "std")}
    for name, fill in (("head.fc.weight", 0.0), ("head.fc.bias", -1e3)):
        rows = head[name]
        head[name] = torch.cat([rows, torch.full((2, *rows.shape[1:]), fill)])[order]
    torch.save({"model": head, **options}, tmp_path / "twelve.pt")
    for i in range(12):
        (tmp_path / "data" / str(i)).mkdir(parents=True)
        for path in sorted((TEST_IMAGES / str(i % 10)).iterdir())[: 6 if i < 10 else 0]:
            shutil.copy(path, tmp_path / "data" / str(i))
    ran = export(tmp_path, tmp_path / "twelve.pt", "--data", tmp_path / "data")
    said = " ".join(ran.err.split())
    assert ran.code == 1 and "% of the images are right in another order" in said
    assert "pass --labels with that folder, too" in said
    names = sorted(path.name for path in (tmp_path / "data").iterdir())
    (tmp_path / "again").mkdir()
    options = ("--data", tmp_path / "data", "--labels", tmp_path / "data", "--json")
    ran = export(tmp_path / "again", tmp_path / "twelve.pt", *options)
    assert ran.code == 0, ran.err
    (made,) = ran.json["exports"]
    assert made["report"]["images"]["accuracy"] > 0.8 and made["manifest"]["labels"] == names


@pytest.mark.slow
def test_a_handful_of_labelled_images_is_exported_with_a_warning(tmp_path: Path) -> None:
    for index in range(2):  # one of ten classes is right in a tenth of all guesses
        (tmp_path / "data" / str(index)).mkdir(parents=True)
    shutil.copy(sorted((TEST_IMAGES / "0").iterdir())[0], tmp_path / "data" / "0")
    ran = export(tmp_path, PAPER_CHECKPOINT, "--data", tmp_path / "data")
    assert ran.code == 0, ran.err
    assert "and paper is exported: too few images to tell" in " ".join(ran.err.split())


def test_the_guide_records_a_reference_on_one_thread() -> None:
    """On several, the in-place statements race, and what is recorded fits neither semantics."""
    text = (Path(__file__).parents[3] / "docs" / "export.md").read_text("utf-8")
    (snippet,) = (block for block in text.split("```") if "np.savez" in block)
    assert snippet.index("torch.set_num_threads(1)") < snippet.index("model.eval()")


@pytest.mark.slow
def test_labels_in_another_order_are_noticed(tmp_path: Path) -> None:
    for index in range(10):
        (tmp_path / "data" / str((index + 1) % 10)).mkdir(parents=True)
        for path in sorted((TEST_IMAGES / str(index)).iterdir())[:3]:
            shutil.copy(path, tmp_path / "data" / str((index + 1) % 10))
    ran = export(tmp_path, PAPER_CHECKPOINT, "--data", tmp_path / "data")
    assert ran.code == 1
    assert "neither semantics does better than guessing" in ran.err and "another order of classes" in ran.err
