"""Tables of a benchmark on terminals of every width: whole numbers, names that can be told apart, a column for each setting."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from helpers.benchmarks import BASELINES, ENVIRONMENT, PAIR, Entry, made_up, swept
from s2mlp_bench.benchmark import Result
from s2mlp_bench.candidate import Point
from s2mlp_bench.report import names, section, table, tables
from s2mlp_bench.report.section import Section
from s2mlp_deploy.system.wording import counted

FOUR = [
    replace(PAIR[i], source=f"fashion_mnist-{of}") for i, of in ((0, "onnx-fp32"), (1, "onnx-int8"), (1, "ort-int8"))
]
FOUR.append(Entry("openvino, fashion_mnist-onnx-fp32", 11.0, "baseline"))
ON_TWO = swept([*FOUR, *BASELINES], (1, 2))
AROUND = {**ENVIRONMENT, "usable_cores": 2}


def printed(result: Result, width: int) -> str:
    console = Console(width=width, highlight=False, file=io.StringIO())
    console.print(table.render(result, AROUND))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def sections(result: Result) -> list[Section]:
    found = (
        tables.latency(result.summary),
        tables.cold(result.summary),
        tables.roofline(result),
        tables.profile(result),
    )
    return [one for one in found if one]


# Names


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        (["fashion_mnist-onnx-fp32", "fashion_mnist-onnx-int8"], "fashion_mnist-onnx-"),
        (["fashion_mnist-onnx-fp32", "fashion_mnist-ort-fp32"], "fashion_mnist-"),
        (["run 12/a", "run 12/b"], "run 12/"),
        (["model", "model-int8"], ""),  # something is left of each
        (["models-fp32", "models2-fp32"], ""),  # words stay whole
        (["a-fp32", "a-int8"], ""),  # too short to be worth it
        (["fashion_mnist-onnx-fp32"] * 2, ""),
        ([], ""),
    ],
)
def test_names_share_the_words_that_they_all_begin_with(given: list[str], prefix: str) -> None:
    assert names.shared_prefix(given) == prefix


def test_names_are_folded_where_words_end() -> None:
    assert names.folded("openvino, fashion_mnist-onnx-fp32", 40) == "openvino, fashion_mnist-onnx-fp32"
    assert names.folded("openvino, onnx-fp32", 12) == "openvino,\nonnx-fp32"
    assert names.folded("openvino, fashion_mnist-onnx-fp32", 14) == "openvino,\nfashion_mnist-\nonnx-fp32"
    assert names.folded("x" * 30, 12).split("\n") == ["x" * 12, "x" * 12, "x" * 6]
    assert names.folded("模型模型模型模型", 12).split("\n") == ["模型模型模型", "模型"]


def test_what_all_bundles_begin_with_is_left_out_and_said_once() -> None:
    _, result = made_up(ON_TWO)
    found = result.summary
    assert found.prefix == "fashion_mnist-"
    shown = list(dict.fromkeys(found.short(f) for f in found.figures))
    assert shown[:4] == ["onnx-fp32", "onnx-int8", "ort-int8", "openvino, onnx-fp32"] and "torch-eager" in shown
    assert printed(result, 120).count("fashion_mnist") == 1


def test_a_name_is_shortened_only_where_it_stays_the_only_one_of_its_kind() -> None:
    entries = [
        replace(PAIR[0], source="mine-mixer"),
        replace(PAIR[1], source="mine-fp32"),
        Entry("mixer", 3.0, "baseline"),
    ]
    assert made_up(entries)[1].summary.prefix == ""
    assert made_up(entries[:2])[1].summary.prefix == "mine-"
    assert made_up([replace(PAIR[0], source="fashion_mnist-onnx-fp32"), *BASELINES])[1].summary.prefix == ""


# Settings


def test_threads_that_differ_are_a_column_of_every_table() -> None:
    for one in sections(made_up(ON_TWO)[1]):
        assert (one.headings[1], one.keys) == ("threads", 2)
        told_apart = [tuple(row[:2]) for row in one.rows]
        assert len(set(told_apart)) == len(told_apart) and {row[1] for row in one.rows} == {"1", "2"}
        assert not any("thread" in str(row[0]) for row in one.rows)


def test_settings_that_all_share_are_in_the_title_alone() -> None:
    one = tables.latency(made_up(swept(PAIR, (2,)))[1].summary)
    assert one.title == "Milliseconds a batch, 2 threads" and one.keys == 1 and "threads" not in one.headings


def test_every_setting_can_have_a_column() -> None:
    points = [Point(), Point(4), Point(size=(224, 192)), Point(provider="cuda")]
    _, result = made_up([Entry(f"bundle{i}", 5.0) for i in range(4)])
    figures = tuple(replace(f, point=p) for f, p in zip(result.summary.figures, points, strict=True))
    found = replace(result.summary, figures=figures)
    assert found.swept == ("provider", "batch", "image size") and found.shared == ()
    assert [found.keys(f)[1:] for f in figures] == [
        ["default", "1", "default"],
        ["default", "4", "default"],
        ["default", "1", "224x192"],
        ["cuda", "1", "default"],
    ]
    assert found.label(figures[1]) == "bundle1, default provider, batch 4, default image size"


# Widths


@pytest.mark.parametrize("width", [50, 60, 80, 100, 120, 200])
def test_no_number_is_cut_and_no_line_is_too_long(width: int) -> None:
    _, result = made_up(ON_TWO, noise=["x"])
    text = printed(result, width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert not re.search(r"\S…|…\S", text), "only intervals have an ellipsis, between blanks"
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    whole = {cell for row in rows for cell in row}
    for one in sections(result):
        assert {cell for row in one.rows for cell in row[1:]} <= whole


def test_what_does_not_fit_follows_below_with_names_and_threads_repeated() -> None:
    _, result = made_up(ON_TWO)
    narrow, wide = printed(result, 80), printed(result, 120)
    assert "Milliseconds a batch (continued)" in narrow and "continued" not in wide
    assert len(re.findall(r"│ onnx-int8 +│ +2 │", narrow)) == 6 and len(re.findall(r"│ onnx-int8 +│ +2 │", wide)) == 4


def test_sentences_in_cells_are_wrapped_and_not_cut() -> None:
    words = "the processor and the memory beside it, as the operating system counts them"
    one = Section("Energy", ("candidate", "mJ an image", "of"), [["fp32", "1.23", words]])
    console = Console(width=60, highlight=False, file=io.StringIO())
    console.print(section.render(one))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    found = [line.split("│")[3].strip() for line in text.splitlines() if line.startswith("│")]
    assert " ".join(found) == words and "1.23" in text


# Words


def test_what_shows_no_difference_is_said_in_a_sentence() -> None:
    _, result = made_up((Entry("a", 10.0), Entry("b", 10.0), Entry("c", 20.0)))
    same = replace(result.summary.figures[1].speed, median=1.01, low=0.99, high=1.03)
    figures = (result.summary.figures[0], replace(result.summary.figures[1], speed=same), result.summary.figures[2])
    one = tables.latency(replace(result.summary, figures=figures))
    assert [note for note in one.notes if note.startswith("No difference")] == [
        "No difference from the first is shown, since 1 lies in the interval: b."
    ]
    assert "0.99 … 1.03" in one.rows[1]


def test_a_remark_is_made_once_for_all_threads_and_once_each_where_it_differs() -> None:
    entries = swept([PAIR[0], BASELINES[1]], (1, 2))
    found = made_up(entries)[1].summary
    assert found.remarks(found.figures) == [("no-shift", "another network")]
    figures = (*found.figures[:-1], replace(found.figures[-1], remark="something else"))
    found = replace(found, figures=figures)
    assert found.remarks(figures) == [
        ("no-shift, 1 thread", "another network"),
        ("no-shift, 2 threads", "something else"),
    ]


def test_one_of_a_kind_is_no_plural() -> None:
    assert (counted(1, "round"), counted(2, "round"), counted(0, "round")) == ("1 round", "2 rounds", "0 rounds")
    result = made_up(PAIR)[1]
    once = replace(result, summary=replace(result.summary, rounds=1))
    assert "1 interleaved round after" in printed(once, 120)
    console = Console(width=120, file=io.StringIO())
    console.print(table.render(once, {**AROUND, "usable_cores": 1}))
    assert ", 1 core," in console.file.getvalue()  # type: ignore[attr-defined]
