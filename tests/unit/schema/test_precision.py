"""One row for each precision, and nothing else that tells precisions apart."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest

from helpers.support import ROOT
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.schema.precision import (
    ARM,
    BF16,
    FP16,
    FP32,
    INT8,
    ON_CPUS,
    PRECISIONS,
    TARGETS,
    TRT,
    X86,
    Precision,
    precision,
)

EACH = pytest.mark.parametrize("row", PRECISIONS.values(), ids=PRECISIONS)


@EACH
def test_a_row_is_found_by_its_name(row: Precision) -> None:
    assert precision(row.name) is row


def test_a_name_that_no_row_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="'fp64': expected fp32 or fp16 or bf16 or int8"):
        precision("fp64")


@EACH
def test_passes_that_a_row_names_are_there(row: Precision) -> None:
    for arithmetic in filter(None, (row.on_gpu, row.on_cpu)):
        assert arithmetic.rounding is None or callable(resolve_name(arithmetic.rounding))
    assert row.calibrated or (row.on_gpu.rounding is not None) == row.rounds


def test_float16_is_for_storage_on_cpus_and_for_products_on_gpus() -> None:
    assert [FP16.recorded(target.name) for target in (X86, ARM, TRT)] == ["float32", "float32", "float16"]
    assert not FP16.read("float32").sums_in_float16 and FP16.read("float32").widens_weights
    assert FP16.read("float16").sums_in_float16 and not FP16.read("float16").widens_weights


def test_manifests_from_before_there_was_a_choice_are_of_graphs_that_compute_in_float16() -> None:
    assert FP16.read(None) == FP16.read("float16")


@pytest.mark.parametrize("row", [FP32, BF16, INT8], ids=lambda row: row.name)
def test_where_all_targets_compute_alike_a_manifest_records_no_arithmetic(row: Precision) -> None:
    assert {row.recorded(target) for target in TARGETS} == {None}
    assert not row.read(None).sums_in_float16 and not row.read(None).widens_weights


def test_cpus_compute_every_precision_but_bfloat16() -> None:
    assert ON_CPUS == ("fp32", "fp16", "int8")


def test_bytes_of_a_product_are_those_of_its_types() -> None:
    assert [row.on_gpu.item_bytes for row in PRECISIONS.values()] == [(4, 4, 4), (2, 2, 2), (2, 2, 2), (1, 1, 4)]


def compared_names(file: Path) -> Iterator[int]:
    """The lines of ``file`` that compare something with the name of a precision, of a target or of a narrow element type."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Compare | ast.BinOp | ast.MatchValue):
            operands = [part for side in ast.iter_child_nodes(node) for part in (side, *getattr(side, "elts", ()))]
            if any(isinstance(part, ast.Constant) and part.value in NAMES for part in operands):
                yield node.lineno


NAMES = {*PRECISIONS, X86.name, ARM.name, "float16", "bfloat16"}
"""Not ``trt``, which is a format too, nor ``float32``, which tensors are held to whatever the precision."""


def test_names_are_compared_in_the_table_alone() -> None:
    files = [*ROOT.joinpath("s2mlp_deploy").rglob("*.py"), *ROOT.joinpath("exporters").rglob("*.py")]
    files += ROOT.joinpath("bench").rglob("*.py")
    found = {f"{file.relative_to(ROOT)}:{line}" for file in files for line in compared_names(file)}
    assert len(files) > 100
    assert {place.split(":")[0] for place in found} == {"s2mlp_deploy/schema/precision.py"}, sorted(found)


@pytest.mark.parametrize(
    "comparison", ['x == "fp16"', 'x in ("int8", "fp16")', '{"bf16"} & x', 'match x:\n    case "arm": pass']
)
def test_each_way_to_compare_a_name_is_found(comparison: str, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(f"a = 1\n{comparison}\n")
    assert list(compared_names(file)) in ([2], [3])


def test_what_only_names_a_precision_is_no_comparison(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('row = precision("fp16")\nnames = ("fp32", "int8")\n')
    assert list(compared_names(file)) == []
