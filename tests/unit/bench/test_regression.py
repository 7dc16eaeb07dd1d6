"""Two runs against each other: what became slower is found, and what only the machine did is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from helpers.support import Ran, command, run, save_checkpoint, small_spec
from s2mlp_bench.results import output, regression
from s2mlp_deploy.errors import DataError

AROUND = {"processor": "P", "usable_cores": 2, "governor": "unknown", "versions": {"onnxruntime": "1.0"}}


def document(samples: dict[str, Sequence[float]], **around: Any) -> dict[str, Any]:
    return {
        "environment": {**AROUND, **around},
        "summary": {"figures": [{"name": name} for name in samples]},
        "samples_ms": {name: list(values) for name, values in samples.items()},
    }


def noisy(median_ms: float, seed: int, rounds: int = 40) -> list[float]:
    return list(median_ms * np.exp(0.03 * np.random.default_rng(seed).standard_normal(rounds)))


def test_what_became_slower_is_found_and_the_rest_is_not() -> None:
    old = document({"a": noisy(10, 0), "b": noisy(5, 1), "c": noisy(7, 2)})
    new = document({"a": noisy(10, 3), "b": noisy(5.5, 4), "c": noisy(6, 5)})
    found = regression.compare(old, new)
    assert found.same_machine and [change.name for change in found.regressions] == ["b"]
    verdicts = {change.name: change.verdict(same_machine=True) for change in found.changes}
    assert verdicts == {"a": "", "b": "slower", "c": "faster"}
    slower = found.changes[1]
    assert slower.absolute.median == pytest.approx(1.1, rel=0.02) and slower.relative is not None
    assert slower.absolute.low > 1 and slower.relative.median == pytest.approx(1.1, rel=0.02)


def test_equal_runs_show_no_regression_in_99_of_100() -> None:
    """Both intervals would have to miss the truth to opposite sides."""
    slower = sum(
        bool(
            regression.compare(
                document({"a": noisy(10, 2 * seed)}), document({"a": noisy(10, 2 * seed + 1)})
            ).regressions
        )
        for seed in range(300)
    )
    assert slower <= 3


def test_on_another_machine_only_ratios_are_judged() -> None:
    """It is twice as slow for everyone, which is no regression; b lost to a, which is one."""
    old = document({"a": noisy(10, 0), "b": noisy(5, 1), "c": noisy(7, 2)})
    new = document({"a": noisy(20, 3), "b": noisy(12, 4), "c": noisy(14, 5)}, processor="Q")
    found = regression.compare(old, new)
    assert not found.same_machine and [change.name for change in found.regressions] == ["b"]
    assert found.surroundings == {"processor": ("P", "Q")}


def test_what_differs_and_what_is_missing_is_said() -> None:
    old = document({"a": noisy(10, 0), "gone": noisy(5, 1)})
    new = document({"a": noisy(10, 2), "fresh": noisy(5, 3)}, versions={"onnxruntime": "2.0"})
    found = regression.compare(old, new)
    assert (found.gone, found.new) == (("gone",), ("fresh",))
    console = Console(width=120)
    with console.capture() as capture:
        console.print(regression.render(found))
    text = capture.get()
    assert "onnxruntime 1.0 → 2.0" in text and "only in the older run: gone" in text
    assert "nothing became slower" in text


def test_a_noisy_run_is_told() -> None:
    old, new = document({"a": noisy(10, 0)}), document({"a": noisy(10, 2)})
    assert regression.compare(old, new).noisy == ()
    old["summary"]["noise"] = ["a: its times spread"]
    found = regression.compare(old, new)
    assert found.noisy == ("older",)
    assert any("noisy in the older run" in note for note in regression.section(found).notes)


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"environment": {}, "summary": {"figures": [{}]}, "samples_ms": {}},
        {"environment": {}, "summary": {"figures": [{"name": "a"}]}, "samples_ms": {"a": []}},
        {"environment": None, "summary": {"figures": [{"name": "a"}]}, "samples_ms": {"a": [1.0] * 8}},
    ],
    ids=["empty", "no name", "no samples", "no environment"],
)
def test_a_damaged_older_run_is_refused(damaged: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        regression.compare(damaged, document({"a": noisy(10, 0)}))


# The command


def bench(*arguments: object) -> Ran:
    return command("s2mlp-bench", "s2mlp_bench.cli", "main", *arguments)


def test_the_command_compares_with_what_it_wrote_before(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec())
    assert run("export", checkpoint, "-o", tmp_path / "fp32").code == 0
    quick = ("--min-seconds", 0, "--min-rounds", 12, "--no-cold", "--no-bound")
    old = tmp_path / "old.json"
    assert bench(tmp_path / "fp32", *quick, "--json-file", old).code == 0
    content = json.loads(old.read_text())
    content["samples_ms"]["fp32"] = [ms / 1000 for ms in content["samples_ms"]["fp32"]]
    old.write_text(json.dumps(content))
    ran = bench(tmp_path / "fp32", *quick, "--compare", old)
    assert ran.code == 1 and "SLOWER: fp32" in ran.out
    content["samples_ms"]["fp32"] = [ms * 1e6 for ms in content["samples_ms"]["fp32"]]
    old.write_text(json.dumps(content))
    ran = bench(tmp_path / "fp32", *quick, "--compare", old)
    assert ran.code == 0 and "faster" in ran.out


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 99, "samples_ms": {}}', "\x00"])
def test_what_is_no_run_is_refused_before_anything_is_timed(tmp_path: Path, content: str) -> None:
    (tmp_path / "old.json").write_text(content)
    ran = bench(tmp_path / "nowhere", "--compare", tmp_path / "old.json")
    assert ran.code == 3 and "s2mlp-bench --json-file" in ran.err and ran.out == ""


def test_what_is_not_finite_is_null_in_a_file(tmp_path: Path) -> None:
    output.write_json(tmp_path / "r.json", {"distance": float("inf"), "ratios": (1.0, float("nan"))})
    assert json.loads((tmp_path / "r.json").read_text()) == {"distance": None, "ratios": [1.0, None]}
