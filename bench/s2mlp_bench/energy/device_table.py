"""Tables of the devices' condition during a measurement, and of energy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from s2mlp_bench.energy.energy import Energy
from s2mlp_bench.energy.monitor import Condition
from s2mlp_bench.report import section
from s2mlp_bench.report.section import UNKNOWN, Cell, Section
from s2mlp_bench.summary import Summary
from s2mlp_deploy.system.wording import counted

ENERGY = ("mJ an image", "above idle", "mean, W", "idle, W", "of", "from")
OF_ALL = (
    "Energy is all that the device took while one ran alone; above idle leaves out what it takes when nothing runs."
)


def render(
    conditions: Sequence[Condition], energies: Mapping[str, Energy | None], found: Summary, *, unknown: Sequence[str]
) -> RenderableType:
    """The condition of each device, the energy of each candidate of ``found``, and what could not be read.

    ``unknown`` lists the figures that the machine has no sensor for. Where nothing was measured, there is no table.
    """
    parts: list[RenderableType] = []
    if conditions:
        parts += [section.render(_conditions(conditions)), *(Text(_settings(c)) for c in conditions)]
    parts += [section.render(one) for one in sections(found, energies)]
    silent = "energy, since no sensor here reads joules or watts" if energies and not any(energies.values()) else ""
    parts += [Text(f"unknown: {words}") for words in (*unknown, silent, *map(_unread, conditions)) if words]
    return Group(*parts)


def _conditions(conditions: Sequence[Condition]) -> Section:
    headings = ("device", "power, W", "clock, MHz", "highest", "°C", "held back by")
    rows = []
    for c in conditions:
        before, after = c.before, c.after
        changes = (_change(before.power_w, after.power_w), _change(before.clock_mhz, after.clock_mhz))
        highest, warmth = _figure(after.clock_max_mhz), _change(before.temperature_c, after.temperature_c)
        throttled = UNKNOWN if c.throttled is None else ", ".join(c.throttled) or "nothing"
        rows.append([before.device, *changes, highest, warmth, throttled])
    return Section("Devices, before → after", headings, rows)


def sections(found: Summary, energies: Mapping[str, Energy | None]) -> list[Section]:
    """The energy of the candidates of ``found`` for a report; none where no joule was measured."""
    if not any(energies.values()):
        return []
    headings = ("candidate", *found.swept, *ENERGY)
    return [Section("Energy", headings, list(_energy_rows(found, energies)), [OF_ALL], 1 + len(found.swept))]


def _energy_rows(found: Summary, energies: Mapping[str, Energy | None]) -> Iterator[list[Cell]]:
    candidates = {f.name: f for f in found.figures}
    for name, e in energies.items():
        keys = found.keys(candidates[name])
        if e is None:
            yield [*keys, *[UNKNOWN] * 4, "", ""]
            continue
        above = e.joules_per_image_above_idle
        figures = (1e3 * e.joules_per_image, None if above is None else 1e3 * above, e.mean_w, e.idle_w)
        source = "its counter" if e.samples is None else f"{counted(e.samples, 'sample')} of power"
        yield [*keys, *map(_figure, figures), e.scope, source]


def _unread(c: Condition) -> str:
    """The figures that one device did not report, before or after."""
    reasons = dict.fromkeys((*c.before.unknown, *c.after.unknown))
    return f"{c.before.device}: {'; '.join(reasons)}" if reasons else ""


def _settings(c: Condition) -> str:
    """The user's settings of one device, and the clock that follows from them alone."""
    mode = _arrow(c.before.power_mode or UNKNOWN, c.after.power_mode or UNKNOWN)
    memory = _change(c.before.memory_clock_mhz, c.after.memory_clock_mhz)
    return f"{c.before.device}: mode {mode}, memory clock {memory}" + (" MHz" if memory != UNKNOWN else "")


def _change(before: float | None, after: float | None) -> str:
    return _arrow(_figure(before), _figure(after))


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _figure(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
