"""Plans of sweeps: what they may hold, and the items that follow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from s2mlp_deploy.errors import InputError, PlanError
from s2mlp_deploy.pipeline.request import OutputOptions
from s2mlp_deploy.pipeline.sweep.item import Item, items_of
from s2mlp_deploy.pipeline.sweep.plan import read_plan
from s2mlp_deploy.quantization.settings import Float16, Int8


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with three checkpoints, which plans are beside; nothing reads more of them than their bytes."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").write_bytes(name.encode())
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "one.png").write_bytes(b"image")
    return tmp_path


def items(place: Path, text: str) -> tuple[Item, ...]:
    file = place / "plan.toml"
    file.write_text(text, "utf-8")
    return items_of(read_plan(file), file)


ALL = '[[export]]\ncheckpoints = ["*/best.pt"]\n'


def test_a_group_makes_every_format_precision_and_lowering_of_every_checkpoint(place: Path) -> None:
    found = items(
        place, ALL + 'formats = ["onnx", "ort"]\nprecisions = ["fp32", "fp16"]\nlowerings = ["gather", "slice"]'
    )
    assert len(found) == 3 * 2 * 2 * 2 == len({item.key for item in found})
    assert {item.checkpoint.parent.name for item in found} == {"a", "b", "c"}


def test_targets_are_for_the_precisions_that_have_them(place: Path) -> None:
    found = items(place, ALL + 'precisions = ["fp32", "fp16"]\ntargets = ["x86", "trt"]')
    assert [(i.choice.precision, i.choice.target) for i in found[:3]] == [
        ("fp32", None),
        ("fp16", "x86"),
        ("fp16", "trt"),
    ]
    assert len(found) == 9


def test_every_key_of_a_plan_reaches_the_request(place: Path) -> None:
    (place / "names.txt").write_text("cat\n")
    text = """
    formats = ["ort"]
    precisions = ["int8", "fp16"]
    batch = 4
    io_dtype = "fp16"
    sbom = true
    card = true
    license = "mit"
    [export.source]
    shift_semantics = "paper"
    shift_directions = "h+,h-"
    image_size = [20, 28]
    mean = 0.5
    std = [0.25]
    resize = "squash"
    labels = "names.txt"
    [export.judgement]
    data = "train"
    data_count = 3
    max_accuracy_drop = 1.5
    [export.calibration]
    data = "train"
    count = 7
    method = "mse"
    quantize_ends = true
    [export.options.ort]
    ort_style = "onnx"
    """
    first, second = (item.request(place / "out") for item in items(place, ALL + text)[:2])
    assert (
        first.source.image_size == (20, 28)
        and first.source.mean == (0.5,)
        and first.source.offsets == ((1, 0), (-1, 0))
    )
    assert first.source.labels == place / "names.txt" and first.evidence.data == place / "train"
    assert first.graph.batch == 4 and first.output == OutputOptions(place / "out", sbom=True, card=True, license="mit")
    assert first.format.options == {"ort_style": "onnx"}
    assert first.precision == Int8(place / "train", 7, "mse", 1.5, quantize_ends=True)
    assert second.precision == Float16(io_dtype="fp16")


def test_a_key_follows_from_content_and_not_from_names(place: Path) -> None:
    before = items(place, ALL)[0].key
    (place / "a").rename(place / "d")
    after = {item.checkpoint.parent.name: item.key for item in items(place, ALL)}
    assert after["d"] == before
    (place / "d" / "best.pt").write_bytes(b"trained on")
    assert before not in {item.key for item in items(place, ALL)}


def test_a_card_and_its_licence_belong_to_the_key(place: Path) -> None:
    keys = [items(place, ALL + text)[0].key for text in ("", "card = true", 'card = true\nlicense = "mit"')]
    assert len(set(keys)) == 3


def test_only_what_an_item_depends_on_changes_its_key(place: Path) -> None:
    text = ALL + 'precisions = ["fp32", "int8"]\n[export.calibration]\ndata = "train"\n'
    float32, int8 = (item.key for item in items(place, text)[:2])
    counted = [item.key for item in items(place, text + "count = 9\n")]
    assert counted[0] == float32 and counted[1] != int8
    os.utime(place / "train" / "one.png", ns=(1, 1))
    touched = [item.key for item in items(place, text)]
    assert touched[0] == float32 and touched[1] != int8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "export: field required"),
        ("[[export]]\n", "[[export]] number 1, checkpoints: field required"),
        ("exports = 1\n" + ALL, "exports: unknown key. Expected export"),
        ('[[export]]\ncheckpoint = "a.pt"', "[[export]] number 1, checkpoint: unknown key. Expected checkpoints, formats"),
        (ALL.replace("[[export]]", "[export]"), "export: expected tables [[export]], in double brackets"),
        (ALL + 'formats = "onnx"', '[[export]] number 1, formats: expected a list, as in ["onnx"]'),
        (ALL + 'precison = ["fp32"]', "[[export]] number 1, precison: unknown key. Expected checkpoints, formats, precisions"),
        (ALL + "[export.judgement]\nimages = 3", "judgement.images: unknown key. Expected reference, data, data_count"),
        (ALL + "[export.evaluation]\nimages = 3", "evaluation.images: unknown key. Expected data, count"),
        (ALL + "[export.evaluation]\ncount = 3", "evaluation.data: field required"),
        (ALL + '[export.evaluation]\ndata = "train"\nworkers = 3', "evaluation.workers: unknown key. Expected data, count"),
        (ALL + 'precisions = ["fp31"]', "unknown precision 'fp31': expected fp32, fp16"),
        (ALL + 'targets = ["x86"]', "targets are for the precisions fp16"),
        (ALL + 'license = "mit"', "license is for card: the model card names the licence"),
        (ALL + 'io_dtype = "fp16"', "io_dtype fp16 is for the precisions fp16"),
        (ALL + '[export.calibration]\ndata = "train"', "calibration is for the precisions int8: leave it out"),
        (ALL + "[export.options.ort]\nort_style = 'ort'", "options of the format 'ort', which is not among the formats"),
        (ALL + "[export.options.onnx]\nfast = true", "fast: not for formats onnx"),
        (ALL + 'formats = ["tflight"]', "no exporter for format 'tflight' is installed"),
        (ALL + 'precisions = ["int8"]', "precisions int8 needs calibration: images of the kind"),
        (ALL + 'formats = ["litert"]\nprecisions = ["bf16"]', "formats litert cannot be made with precisions bf16"),
        (ALL + "allow_unverified_engine = true", "none of the formats makes an engine"),
        ('[[export]]\ncheckpoints = ["*/last.pt"]', "no file matches the checkpoints '*/last.pt'"),
        ('[[export]]\ncheckpoints = ["a"]', "which is a directory"),
        (ALL + ALL, "best.pt onnx fp32 is to be made twice, with the same options"),
        ("[[export]\n", "cannot read the plan"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_carried_out_is_refused(text: str, message: str, place: Path) -> None:
    with pytest.raises(PlanError) as refusal:
        items(place, text)
    assert message in str(refusal.value) and "plan.toml" in str(refusal.value)


def test_two_checkpoints_with_the_same_bytes_are_refused(place: Path) -> None:
    (place / "b" / "best.pt").write_bytes(b"a")
    with pytest.raises(PlanError, match=r"a/best.pt and .*b/best.pt hold the same bytes"):
        items(place, ALL)


def test_a_file_that_the_plan_names_must_be_there(place: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nowhere, which the plan names: No such file"):
        items(place, ALL + '[export.judgement]\ndata = "nowhere"')
