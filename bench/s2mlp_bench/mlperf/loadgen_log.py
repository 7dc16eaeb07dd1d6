"""The detailed log that MLPerf LoadGen writes: a line of JSON for each entry, after ``:::MLLOG``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import OutputError

DETAIL = "mlperf_log_detail.txt"
MARK = ":::MLLOG "

CHECKS = {
    "result_perf_constraints_met": "Performance constraints satisfied",
    "result_min_duration_met": "Min duration satisfied",
    "result_min_queries_met": "Min queries satisfied",
    "early_stopping_met": "Early stopping satisfied",
}
"""What the verdict depends on, in the words of LoadGen's summary."""


@dataclass(frozen=True)
class Check:
    """One of the conditions of a valid run, in LoadGen's words, and whether it was met."""

    name: str
    met: bool


@dataclass(frozen=True)
class Log:
    """``values`` by key, the last where there are more, and LoadGen's errors."""

    values: Mapping[str, Any]
    errors: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """LoadGen's verdict."""
        return bool(self.values["result_validity"] == "VALID")

    @property
    def checks(self) -> tuple[Check, ...]:
        """Those of this scenario."""
        return tuple(Check(name, self.values[key]) for key, name in CHECKS.items() if key in self.values)

    @property
    def recommendations(self) -> tuple[str, ...]:
        """LoadGen's recommendations after a run that is not valid, a sentence each."""
        found = re.split(r"(?<=\.)\s+", self.values.get("result_invalid_reason", "").strip())
        if self.values.get("result_perf_constraints_met") is False:
            # A server that was too slow was sent too few queries as well; that it should be sent more is no help.
            found = [text for text in found if not text.startswith("Increase the target QPS")]
        if not self.values["early_stopping_met"]:
            found += self.values["early_stopping_result"].split(" * ")
        return tuple(" ".join(text.split()) for text in found if text.strip())

    def number(self, key: str) -> float | None:
        """The value of ``key``; None where LoadGen gives none."""
        value = self.values.get(key)
        return None if value is None else float(value)

    def milliseconds(self, key: str) -> float | None:
        """The value of ``key``, which is in nanoseconds."""
        value = self.number(key)
        return None if value is None else value / 1e6


def read(directory: Path) -> Log:
    """The log that a run left in ``directory``.

    Raises:
        OutputError: where it ends before the verdict.
    """
    values: dict[str, Any] = {}
    errors: list[str] = []
    for line in (directory / DETAIL).read_text("utf-8").splitlines():
        try:
            entry = json.loads(line.removeprefix(MARK))
        except ValueError:  # a figure that does not exist, such as the rate of a single query, is written as nan
            continue
        values[entry["key"]] = entry["value"]
        if entry["metadata"].get("is_error"):
            errors.append(str(entry["value"]))
    if "result_validity" not in values or "early_stopping_met" not in values:
        raise OutputError(f"LoadGen could not write its log in {directory}: make room there, and run it again")
    return Log(values, tuple(errors))
