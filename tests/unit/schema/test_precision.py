"""One row for each precision, and nothing else that tells precisions apart."""

from __future__ import annotations

import re
from math import floor, log10
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
    INT8W,
    ON_CPUS,
    ON_GPUS,
    PRECISIONS,
    QUANTIZED_AT_RUNTIME,
    TARGETS,
    TRT,
    X86,
    Precision,
    precision,
)
from s2mlp_deploy.schema.tolerance import Rule, round_up

EACH = pytest.mark.parametrize("row", PRECISIONS.values(), ids=PRECISIONS)


@EACH
def test_a_row_is_found_by_its_name(row: Precision) -> None:
    assert precision(row.name) is row


def test_a_name_that_no_row_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="'fp64': expected fp32 or fp16 or bf16"):
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


@pytest.mark.parametrize("row", [FP32, BF16, INT8, INT8W], ids=lambda row: row.name)
def test_where_all_targets_compute_alike_a_manifest_records_no_arithmetic(row: Precision) -> None:
    assert {row.recorded(target) for target in TARGETS} == {None}
    assert not row.read(None).sums_in_float16 and not row.read(None).widens_weights


def test_cpus_compute_every_precision_but_bfloat16_and_some_runtimes_more() -> None:
    assert set(PRECISIONS) - set(ON_CPUS) - set(QUANTIZED_AT_RUNTIME) == {"bf16"}
    assert set(PRECISIONS) - set(ON_GPUS) == set(QUANTIZED_AT_RUNTIME) == {"int8w"}


def test_tolerances_are_those_that_the_docs_justify() -> None:
    text = (ROOT / "docs/numerics.md").read_text("utf-8")
    digits = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
    stated = re.findall(r"≤  (\d+) · max\(d, 2⁻([⁰¹²³⁴⁵⁶⁷⁸⁹]+)\)", text)
    found = [Rule(int(factor), 2.0 ** -int(floor.translate(digits)), 1.0) for factor, floor in stated]
    assert found == [FP32.rule, FP16.rule, BF16.rule]
    assert "relative L2 at most 0.1, and the same class" in text and "relative L2 of the artifact  ≤  0.1\n" in text
    assert {row.rule.tolerance(0.0).relative_l2 for row in (INT8, INT8W)} == {0.1}
    assert {row.rule.top1_agreement for row in PRECISIONS.values()} == {1.0}


def test_a_limit_has_one_digit_and_is_never_below_the_rule() -> None:
    for value in (1.0, 0.1, 3e-7, 8 * 2.0**-23, 0.99, 1.01e-5):
        limit = round_up(value)
        assert value * (1 - 1e-8) <= limit < value + 10.0 ** floor(log10(value)) and float(f"{limit:.0e}") == limit


def test_bytes_of_a_product_are_those_of_its_types() -> None:
    assert [row.on_gpu.item_bytes for row in (FP32, FP16, BF16, INT8)] == [(4, 4, 4), (2, 2, 2), (2, 2, 2), (1, 1, 4)]
    assert FP16.on_cpu and FP16.on_cpu.item_bytes == (4, 4, 4)
