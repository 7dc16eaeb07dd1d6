"""Compares a benchmark with an older one: candidates that became slower by more than both runs' intervals.

Two runs meet different machines, even on one: so next to each change stands the change relative to the first candidate,
which a machine that is slower today leaves as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from s2mlp_bench.report import section as sections
from s2mlp_bench.report.section import Section
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.system.timing import Estimate, estimate, ratio

SAME_MACHINE = ("processor", "usable_cores", "governor")
"""What must be as it was for times to be compared; ratios within a run carry over."""

HEADINGS = ("time, now / then", "95% intervals", "relative to the first", "95% intervals", "verdict")


@dataclass(frozen=True)
class Change:
    """One candidate's time now in units of its time then, and the same in units of the first candidate's.

    The ends are the quotients of the intervals' ends: they leave out 1 only where the two intervals do not meet.
    ``relative`` is None for the first, with which the others are compared.
    """

    name: str
    absolute: Estimate
    relative: Estimate | None

    def verdict(self, *, same_machine: bool) -> Literal["slower", "faster", ""]:
        """By its own time where the machine is the same, else relative to the first; nothing where the intervals meet."""
        ratio = self.absolute if same_machine else self.relative
        if ratio is None or ratio.low <= 1 <= ratio.high:
            return ""
        return "slower" if ratio.low > 1 else "faster"


@dataclass(frozen=True)
class Comparison:
    """Candidates of both runs; those of one alone; and what differs between the runs' surroundings, then and now;
    and which of them met a ``noisy`` machine."""

    changes: tuple[Change, ...]
    gone: tuple[str, ...]
    new: tuple[str, ...]
    surroundings: Mapping[str, tuple[Any, Any]]
    noisy: tuple[str, ...] = ()

    @property
    def same_machine(self) -> bool:
        """Whether times, not only ratios, can be compared."""
        return not set(SAME_MACHINE) & self.surroundings.keys()

    @property
    def regressions(self) -> tuple[Change, ...]:
        """The candidates that became slower."""
        return tuple(c for c in self.changes if c.verdict(same_machine=self.same_machine) == "slower")


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Hold the document ``new`` (document.py) against ``old``.

    Raises:
        DataError: where they have no candidate in common, or ``old`` is damaged.
    """
    try:
        before, now = _names(old), _names(new)
        common = [name for name in now if name in before]
        if not common:
            raise DataError(f"the two runs have no candidate in common: then {', '.join(before)}; now {', '.join(now)}")
        changes = tuple(_change(name, common[0], old["samples_ms"], new["samples_ms"]) for name in common)
        around = {
            key: (old["environment"].get(key), new["environment"].get(key))
            for key in (*SAME_MACHINE, "versions")
            if old["environment"].get(key) != new["environment"].get(key)
        }
    except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise DataError(
            f"the older run is not what s2mlp-bench --json-file writes ({error!r}): measure it again"
        ) from error
    gone, fresh = (tuple(name for name in a if name not in b) for a, b in ((before, now), (now, before)))
    noisy = tuple(run for run, document in (("older", old), ("present", new)) if document["summary"].get("noise"))
    return Comparison(changes, gone, fresh, around, noisy)


def render(found: Comparison) -> RenderableType:
    """A table of the changes, and what became slower in words."""
    notes = (Text(note, style=style) for note, style in _notes(found))
    return Group(sections.render(replace(section(found), notes=())), *notes)


def section(found: Comparison) -> Section:
    """The same as data, for a report."""
    rows = [
        [c.name, *_cells(c.absolute), *_cells(c.relative), c.verdict(same_machine=found.same_machine)]
        for c in found.changes
    ]
    return Section("Since the older run", ["candidate", *HEADINGS], rows, [note for note, _ in _notes(found)])


def _notes(found: Comparison) -> Iterator[tuple[str, str]]:
    """Sentences, and how they are to be looked at."""
    for key, values in found.surroundings.items():
        yield f"{key} changed: {_differences(*values)}", ""
    if not found.same_machine:
        yield "another machine: compared by the ratios to the first alone", "yellow"
    for name in found.gone:
        yield f"only in the older run: {name}", ""
    for name in found.new:
        yield f"only in this run: {name}", ""
    if found.noisy:
        yield f"the machine was noisy in the {' and the '.join(found.noisy)} run: a change may be its own", "yellow"
    slower = [change.name for change in found.regressions]
    yield (f"SLOWER: {', '.join(slower)}", "bold red") if slower else ("nothing became slower", "green")


def _names(document: Mapping[str, Any]) -> list[str]:
    return [figures["name"] for figures in document["summary"]["figures"]]


def _change(name: str, first: str, then: Mapping[str, Sequence[float]], now: Mapping[str, Sequence[float]]) -> Change:
    relative = None
    if name != first:
        relative = _quotient(ratio(now[name], now[first]), ratio(then[name], then[first]))
    return Change(name, _quotient(estimate(now[name]), estimate(then[name])), relative)


def _quotient(now: Estimate, then: Estimate) -> Estimate:
    return Estimate(now.median / then.median, now.low / then.high, now.high / then.low)


def _cells(e: Estimate | None) -> tuple[str, str]:
    return ("", "") if e is None else (f"{e.median:.3f}", f"{e.low:.3f} … {e.high:.3f}")


def _differences(then: Any, now: Any) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        return ", ".join(f"{key} {then.get(key, 'absent')} → {now.get(key, 'absent')}" for key in keys)
    return f"{then} → {now}"
