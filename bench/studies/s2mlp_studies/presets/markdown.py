"""docs/benchmarks.md and its pictures, from what ``python -m s2mlp_studies.presets`` has measured."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from s2mlp_bench.report import pictures
from s2mlp_bench.results.output import write as write_file
from s2mlp_studies.goal import Goal
from s2mlp_studies.presets import report
from s2mlp_studies.presets.models import MODELS, Part
from s2mlp_studies.presets.report import Measured
from s2mlp_studies.repair.table import repair_tables
from s2mlp_studies.scale import plot, table
from s2mlp_studies.training.table import training_table

WIDTH = 120
PAGE = "benchmarks.md"

WHY = {
    "s2mlp-export --no-gate": "**The export itself, on wide.** Importing torch, onnxruntime and onnxsim takes more than half of the "
    "time of `s2mlp-export --no-gate`, and `torch.onnx.export` is quickest on few blocks.",
    "latency of naive-onnx": "**naive-onnx / fp32.** The ratio to *no-shift* is the most that any lowering can reach; on wide "
    "that is less than the goal.",
    "latency of openvino-static": "**OpenVINO's static int8.** It quantizes the patch embedding and the classifier, "
    "too, but in ONNX Runtime (`--quantize-ends`) that brings nothing. Where the rest goes was not taken apart.",
    "its products alone": "**int8 beyond its products.** The goal was set on processors with VNNI, where it is kept (an AMD EPYC: 1.20 "
    "for wide, 1.28 for deep). With AMX the products take a third of that time, and GELU, quantizing and LayerNorm, which stay "
    "in float32, weigh more.",
    "gain of a 2nd thread": "**A second thread for int8.** What is between the products takes a larger share in "
    "int8, and gains less.",
    "training time of compiled shift": "**The compiled shift, on deep.** A map of deep is half of wide's, and there the popular statements "
    "are quicker an element. Compiled, the shift takes about three times a plain copy and its gradient (AMD EPYC); where the rest goes was "
    "not taken apart.",
    "size of int8 engine": "**deep, size of int8 engines.** TensorRT for RTX adds about 70 kB a kernel, whatever the "
    "weights take and however many GPUs it builds for; deep has 292 kernels, and int8 makes the weights small.",
}
"""What is known of goals that were missed, by what they are about."""


def check() -> None:
    """That pages and pictures can be made here.

    Raises:
        RuntimeMissingError: where a package is missing.
    """
    pictures.check(Path(PAGE).with_suffix(".png"))


def write(measured: Measured, directory: Path) -> None:
    """Write the page and its pictures into ``directory``, over what is there.

    Raises:
        OutputError: where that fails.
    """
    import jinja2

    latencies, scalings = [], []
    for latency in measured.latencies:
        picture = f"bench_{latency.model}.png"
        pictures.draw(latency.everything.result, directory / picture, replace=True)
        tables = _text(report.latency_tables(latency))
        latencies.append({"model": latency.model, "title": title(latency.model), "picture": picture, "tables": tables})
    for scaled in measured.scalings:
        picture = f"scale_{scaled.model}.png"
        write_file(directory / picture, plot.picture(scaled.scaling, ".png"))
        tables = _text(table.render(scaled.scaling, scaled.environment))
        scalings.append({"model": scaled.model, "title": title(scaled.model), "picture": picture, "tables": tables})
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=False, undefined=jinja2.StrictUndefined).get_template(
        f"{PAGE}.j2"
    )
    page = template.render(
        parts="|".join(part.value for part in Part),
        environment=_text(measured.environment),
        goals=[_goal(goal) for goal in measured.goals],
        reasons=reasons(measured.goals),
        latencies=latencies,
        scalings=scalings,
        exports=_text(*map(report.export_table, measured.exports)),
        engines=_text(*map(report.engine_table, measured.engines)),
        repairs=_text(repair_tables(measured.repairs)) if measured.repairs else "",
        training=_text(training_table(measured.training)) if measured.training else "",
    )
    write_file(directory / PAGE, page)


def title(model: str) -> str:
    """The name of a preset in prose."""
    return MODELS[model].title


def reasons(goals: Sequence[Goal]) -> list[str]:
    """Why goals were missed, as far as that is known; each once."""
    found = []
    for goal in goals:
        if not goal.holds:
            known = [text for what, text in WHY.items() if what in goal.what]
            found += known or [f"**{goal.model}, {goal.what}.** Not yet understood."]
    return list(dict.fromkeys(found))


def _goal(goal: Goal) -> dict[str, Any]:
    verdict = ("holds" if goal.holds else "MISSED") + ("" if goal.clear else ", unclear")
    return {
        "model": goal.model,
        "what": goal.what,
        "limit": goal.limit,
        "measured": f"{goal.measured.median:.3f} [{goal.measured.low:.3f}, {goal.measured.high:.3f}]",
        "verdict": verdict,
    }


def _text(*parts: RenderableType) -> str:
    """What a terminal of :data:`WIDTH` columns would show."""
    console = Console(file=StringIO(), width=WIDTH, highlight=False)
    console.print(*parts, sep="\n")
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip("\n").split("\n"))  # type: ignore[attr-defined]
