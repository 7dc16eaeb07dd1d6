"""Write the report of a benchmark as one self-contained HTML file, for light and dark, wide and narrow screens.

Names of bundles come from directories, so everything is escaped but the pictures, which escape by themselves; and the page
allows itself neither scripts nor requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from s2mlp_bench.benchmark import Plan, Result
from s2mlp_bench.report import findings, pictures, tables
from s2mlp_bench.report.pictures import drawing, inline_svg
from s2mlp_bench.report.pictures.drawing import printable
from s2mlp_bench.report.section import UNKNOWN, Section
from s2mlp_bench.report.table import SHOWN
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.schema.size import format_size
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_deploy.system.wording import counted


def check() -> None:
    """That a report can be written, before anything is measured for it.

    Raises:
        RuntimeMissingError: where Jinja2 or matplotlib is not installed.
    """
    drawing.require()
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise RuntimeMissingError(f"--html needs Jinja2, which is not installed: {pip_install('bench')}") from error


def render(
    plan: Plan,
    result: Result,
    environment: Mapping[str, object],
    *,
    command: str,
    extras: Sequence[Section] = (),
) -> str:
    """The report. ``environment`` comes from :func:`s2mlp_bench.environment.describe`, ``command`` repeats the
    measurement, and ``extras`` are further tables.

    Raises:
        RuntimeMissingError: as :func:`check`.
    """
    check()
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    found = result.summary
    shown = {
        picture.name: {
            "svg": Markup(inline_svg.inline(picture.svg, name=picture.name, words=picture.words)),
            "notes": picture.notes,
        }
        for picture in pictures.of_report(result)
    }
    engine = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    template = engine.from_string((resources.files("s2mlp_bench.report") / "report.html.j2").read_text("utf-8"))
    return template.render(
        title=findings.title(found),
        subtitle=findings.subtitle(found, plan),
        findings=findings.findings(found),
        verdict=findings.verdict(found),
        good=found.stable and found.complete,
        noise=found.noise,
        few=SHOWN,
        unknown=UNKNOWN,
        remarks=findings.remarks(found),
        pictures=shown,
        latency=tables.latency(found),
        starts=[t for t in (tables.cold(found), tables.on_device(found)) if t],
        roofline=tables.roofline(result),
        profile=tables.profile(result),
        extras=extras,
        machine=_machine(environment),
        options=_options(plan, result),
        command=command,
        rounds=counted(found.rounds, "interleaved round"),
        warmup=found.warmup_rounds,
        overhead_us=f"{1e3 * found.overhead_ms:.1f}",
    )


def _shown(value: Any) -> Any:
    """What a browser can show: no character that no file may contain, and nothing that is not known as if it were empty."""
    if value is None:
        return UNKNOWN
    return printable(value) if type(value) is str else value


def _machine(environment: Mapping[str, object]) -> list[tuple[str, str | None]]:
    return [(key.replace("_", " "), _words(value)) for key, value in environment.items()]


def _words(value: object) -> str | None:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return None if value is None else str(value)


def _options(plan: Plan, result: Result) -> list[tuple[str, str]]:
    """The plan in words, what was left to its default, too; and of what could be measured besides, what was."""
    schedule, figures = plan.schedule, result.summary.figures
    joules = any(energy is not None for energy in result.devices.energies.values())
    return [
        ("bundles", ", ".join(map(str, plan.bundles))),
        ("baselines", ", ".join(plan.baselines) or "none"),
        ("batch sizes", ", ".join(map(str, plan.batches))),
        ("threads", ", ".join("the runtime's own choice" if n is None else str(n) for n in plan.threads)),
        ("image sizes", ", ".join("the model's own" if size is None else format_size(size) for size in plan.sizes)),
        ("providers", ", ".join("the bundle's own" if name is None else name for name in plan.providers)),
        ("measured for at least", f"{schedule.seconds:g} s and {counted(schedule.rounds, 'round')}"),
        ("seed of the orders", str(schedule.seed)),
        ("cold starts", _measured(any(f.cold for f in figures), wanted=plan.cold)),
        ("matrix products alone", _measured(any(f.of_bound for f in figures), wanted=plan.bound)),
        ("energy", _measured(joules, wanted=plan.energy)),
    ]


def _measured(measured: bool, *, wanted: bool) -> str:
    if measured:
        return "measured"
    return "not measured: no sensor or counter for it here" if wanted else "left out"
