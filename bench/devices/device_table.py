"""What the devices did while something was measured, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench import section
from bench.devices.energy import Energy
from bench.devices.watch import Condition
from bench.section import UNKNOWN, Section

ENERGY = ("mJ an image", "above idle", "mean, W", "idle, W", "of", "from")
OF_ALL = (
    "Energy is all that the device took while one ran alone; above idle leaves out what it takes when nothing runs."
)


def render(
    conditions: Sequence[Condition], energies: Mapping[str, Energy | None], *, unknown: Sequence[str]
) -> RenderableType:
    """The condition of each device, the energy of each contestant, and what could not be read.

    ``unknown`` is what the machine has no gauge for. Where nothing was asked for, there is no table.
    """
    parts: list[RenderableType] = []
    if conditions:
        parts += [_conditions(conditions), *(Text(_settings(c)) for c in conditions)]
    parts += [section.render(one) for one in sections(energies)]
    parts += [Text(f"unknown: {words}") for words in (*unknown, *map(_unread, conditions)) if words]
    return Group(*parts)


def _conditions(conditions: Sequence[Condition]) -> Table:
    table = Table(title="devices, before → after", title_justify="left", title_style="bold")
    table.add_column("device", overflow="fold")
    for heading in ("power, W", "clock, MHz", "highest", "°C"):
        table.add_column(heading, justify="right")
    table.add_column("held back by", overflow="fold")
    for c in conditions:
        before, after = c.before, c.after
        table.add_row(
            before.device,
            _change(before.power_w, after.power_w),
            _change(before.clock_mhz, after.clock_mhz),
            _figure(after.clock_max_mhz),
            _change(before.temperature_c, after.temperature_c),
            UNKNOWN if c.throttled is None else ", ".join(c.throttled) or "nothing",
        )
    return table


def sections(energies: Mapping[str, Energy | None]) -> list[Section]:
    """The energy for a report; none where nothing was measured."""
    return [Section("Energy", ["contestant", *ENERGY], list(_energy_rows(energies)), [OF_ALL])] if energies else []


def _energy_rows(energies: Mapping[str, Energy | None]) -> Iterator[list[str]]:
    for name, e in energies.items():
        if e is None:
            yield [name, *[UNKNOWN] * 4, "", ""]
            continue
        above = e.joules_per_image_above_idle
        figures = (1e3 * e.joules_per_image, None if above is None else 1e3 * above, e.mean_w, e.idle_w)
        source = "its counter" if e.samples is None else f"{e.samples} samples of power"
        yield [name, *map(_figure, figures), e.scope, source]


def _unread(c: Condition) -> str:
    """What one device did not tell, before or after."""
    reasons = dict.fromkeys((*c.before.unknown, *c.after.unknown))
    return f"{c.before.device}: {'; '.join(reasons)}" if reasons else ""


def _settings(c: Condition) -> str:
    """What somebody has set on one device, and the clock that follows from it alone."""
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
