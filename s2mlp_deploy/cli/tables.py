"""Tables that commands print, for any width of terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s2mlp_deploy.cli.bundle_tables import FLOAT64, bundle_grid, network_lines, reference_of
from s2mlp_deploy.cli.grid import fact, new_grid
from s2mlp_deploy.cli.lines import (
    artifact_line,
    engine_line,
    int8_line,
    labelled_line,
    left_out_line,
    model_line,
    network_line,
    or_dash,
    preprocessing_line,
    readable_size,
    shift_line,
    tensor_line,
)
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.gate.checks import Verdict
from s2mlp_deploy.gate.golden_images import Preparation
from s2mlp_deploy.pipeline.comparison import Row
from s2mlp_deploy.pipeline.latency import Method
from s2mlp_deploy.pipeline.verified_accuracy import VerifiedAccuracy
from s2mlp_deploy.pipeline.verify import Verification
from s2mlp_deploy.schema.manifest import Manifest, Preprocessing
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.precision import precision
from s2mlp_deploy.schema.size import format_size
from s2mlp_deploy.schema.spec import categories
from s2mlp_deploy.system.timing import Estimate
from s2mlp_deploy.system.wording import counted

if TYPE_CHECKING:  # these need torch, and checking a bundle does not
    from s2mlp_deploy.checkpoint.load import Checkpoint
    from s2mlp_deploy.pipeline.deploy import Export


def inspection(source: Checkpoint, contract: Preprocessing | None, warnings: list[str]) -> RenderableType:
    """The findings of ``s2mlp-inspect`` in a checkpoint."""
    spec = source.spec
    grid = new_grid()
    fact(grid, "checkpoint", f"{source.path.name}, {readable_size(source.size_bytes)}, {', '.join(source.dtypes)}")
    fact(grid, "sha256", source.sha256)
    prefix = f", prefix {source.prefix}" if source.prefix else ""
    fact(grid, "layout", source.layout.name + (f", under {source.wrapper!r}" if source.wrapper else "") + prefix)
    if source.left_out:
        fact(grid, "left out", left_out_line(source.left_out))
    fact(grid, "model", model_line(spec))
    for i, line in enumerate(family_of(spec).stage_lines(spec)):
        fact(grid, f"stage {i}", line)
    if structure := shift_line(spec):
        fact(grid, "shift" if spec.shifts else "structure", structure)
    by_sign = " by the sign of one logit" if spec.classes == 1 else ""
    fact(grid, "classes", f"{categories(spec.classes)}{by_sign}" + (", named" if source.recorded.labels else ""))
    if contract:
        fact(grid, "images", preprocessing_line(contract))
    fact(grid, "parameters", f"{spec.parameters():,}")
    fact(grid, "multiply-adds", f"{spec.macs():,} an image of {format_size(spec.image_size)}")
    return Group(grid, *(Text(f"warning: {w}", style="yellow") for w in warnings))


def inspection_json(source: Checkpoint, contract: Preprocessing | None, warnings: list[str]) -> dict[str, Any]:
    """The findings of :func:`inspection` for machines."""
    spec = source.spec
    return {
        "sha256": source.sha256,
        "size_bytes": source.size_bytes,
        "dtypes": source.dtypes,
        "layout": source.layout.name,
        "weights": source.wrapper,
        "prefix": source.prefix,
        "other_weights": source.others,
        "left_out": [vars(tensor) for tensor in source.left_out],
        "spec": spec.to_json(),
        "parameters": spec.parameters(),
        "macs": spec.macs(),
        "recorded": vars(source.recorded),
        "preprocessing": contract.model_dump(mode="json") if contract else None,
        "warnings": warnings,
    }


def export(result: Export) -> RenderableType:
    """The result of ``s2mlp-export``."""
    manifest = result.bundle.manifest
    grid = new_grid()
    fact(grid, "bundle", str(result.bundle.directory))
    fact(grid, "artifact", artifact_line(result.bundle))
    fact(grid, "model", network_line(manifest.spec))
    for name, line in (
        network_lines(manifest) if isinstance(manifest.spec, OnnxNetwork) else _classifier_lines(manifest)
    ):
        fact(grid, name, line)
    if left_out := result.report.left_out:
        fact(grid, "left out", left_out_line(left_out))
    if (data := result.report.data) and (line := labelled_line(data, manifest.labels)):
        fact(grid, "data", line)
    for evidence in result.report.evidence:
        fact(grid, "evidence", f"{evidence.quantity} over {counted(evidence.samples, 'sample')}: {evidence.figures}")
    if labelled := result.report.images:
        fact(
            grid,
            "accuracy",
            f"{labelled.accuracy:.2%} on {counted(labelled.count, 'image')}, PyTorch {labelled.accuracy_pytorch:.2%}, "
            f"same class on {labelled.top1_agreement:.2%}",
        )
    if quantization := manifest.quantization:
        fact(grid, "int8", int8_line(manifest, quantization))
        if quantization.float_layers:
            fact(grid, "in float", ", ".join(quantization.float_layers))
    if trials := result.report.trials:
        last = trials[-1]
        accuracy = "" if last.accuracy is None else f"accuracy {last.accuracy:.2%}, float {last.float_accuracy:.2%}, "
        fact(grid, "evaluated", f"{accuracy}same class on {last.agreement:.2%} of images that did not calibrate")
    if engine := result.report.engine:
        fact(grid, "engine", engine_line(engine, shifts=bool(manifest.spec.semantics)))
    if manifest.verdict == "pending a device":
        # Where nothing here runs the graph rightly, only its float32 version was checked.
        graph, left = (
            ("float32 graph", "one")
            if manifest.format == "onnx" or not precision(manifest.precision).on_cpu
            else ("graph", "engine")
        )
        passed = f"its {graph} passed,"
        if result.report.recomputed:
            worst = max(found.relative_l2 for found in result.report.distances.values())
            passed = f"its {graph} passed, and so did the {left}, recomputed here (relative L2 up to {worst:.1e});"
            left = "runtime"
        waits = f"PENDING A DEVICE: {passed} the {left} has not run; s2mlp-verify checks it there"
        return Group(grid, Text(waits, "bold yellow"))
    if result.verdict is None:
        return Group(grid, Text(f"NOT JUDGED: {_WHY_NOT_JUDGED[manifest.verdict]}", style="bold yellow"))
    torch = {case: d.relative_l2 for case, d in result.report.pytorch_distances.items()}
    parity = parity_table(result.verdict, torch, reference_of(manifest))
    return Group(grid, parity, verdict_line(result.verdict))


def _classifier_lines(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The interface and structure of an image classifier, for who has exported it."""
    spec = manifest.classifier
    if structure := shift_line(spec):
        lowering = f"{manifest.lowering} lowering, " if spec.shifts else ""
        yield "shift" if spec.shifts else "structure", lowering + structure
    yield "input", tensor_line(manifest.input)
    if manifest.interface.output != "logits":
        outputs = [entry for entry in (manifest.output, manifest.output_classes) if entry]
        yield "output", ", ".join(map(tensor_line, outputs))
    yield "images", preprocessing_line(manifest.images)


_WHY_NOT_JUDGED = {
    "not judged": "without its gate nothing says that the numbers are right, and s2mlp-verify cannot check them",
    "for benchmarks only": "calibrated on noise, for measuring speed alone",
}


def comparison(rows: Sequence[Row]) -> RenderableType:
    """Several exports of one checkpoint side by side."""
    table = _side_by_side("side by side", "size", "× first", "relative L2", "cosine", "same class", "accuracy")
    for row in rows:
        table.add_row(
            Text(row.bundle),
            readable_size(row.size_bytes),
            f"{row.size_ratio:.3f}",
            or_dash(row.relative_l2, ".1e"),
            or_dash(row.cosine, ".6f"),
            or_dash(row.same_class, ".2%"),
            or_dash(row.accuracy, ".2%"),
        )
    return table


def latencies(rows: Sequence[Row], method: Method) -> RenderableType:
    """The time of a batch for each export, relative to the first where there are several, and the method of measurement."""
    several = len(rows) > 1
    table = _side_by_side("latency", "ms a batch", "95% interval", *(["× first", "95% interval"] if several else []))
    first = next((row for row in rows if row.latency), None)
    for row in rows:
        if row.latency is None:
            table.add_row(Text(row.bundle), "–", "cannot run here")
            continue
        time, speed = milliseconds(row.latency.milliseconds), row.latency.speed
        ratio = ["1.00", ""]
        if row is not first:
            doubt = "" if row.latency.differs else " ≈"
            ratio = [f"{speed.median:.2f}", f"{speed.low:.2f} … {speed.high:.2f}{doubt}"]
        table.add_row(Text(row.bundle), *time, *(ratio if several else []))
    order = ", in an order drawn anew each round" if several else ""
    meaning = ". × first: how many times as fast as the first, ≈: no difference shown" if several else ""
    return Group(
        table,
        Text(
            f"medians of {counted(method.rounds, 'round')} in one process{order}; batch {method.batch}, "
            f"{method.input}, the runtime's default threads on {counted(method.cores, 'core')}{meaning}"
        ),
    )


def milliseconds(time: Estimate) -> tuple[str, str]:
    """The median and its interval, both to three digits of the median."""
    digits = max(0, 2 - floor(log10(time.median))) if time.median > 0 else 3
    return f"{time.median:.{digits}f}", f"{time.low:.{digits}f} … {time.high:.{digits}f}"


def _side_by_side(title: str, *headings: str) -> Table:
    """A column of bundles, whose names fold where they must, and numbers, which never do."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("bundle", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def picture(path: Path) -> RenderableType:
    """The file of the plot."""
    grid = new_grid()
    fact(grid, "plot", str(path))
    return grid


def verification(result: Verification) -> RenderableType:
    """The findings of ``s2mlp-verify``."""
    grid = bundle_grid(result.bundle)
    fact(grid, "signature", str(result.bundle.signature))
    if result.execution:
        fact(grid, "ran on", str(result.execution))
    parts: list[RenderableType] = [grid]
    if result.preparation:
        parts.append(preparation_line(result.preparation))
    reference = reference_of(result.bundle.manifest)
    parts += [parity_table(result.verdict, reference=reference), verdict_line(result.verdict)]
    if result.cause:
        parts.append(Text(result.cause[0].upper() + result.cause[1:]))
    if result.layers:
        parts += [layer_table(result), layer_line(result)]
    return Group(*parts)


def accuracy_line(found: VerifiedAccuracy) -> Text:
    """The accuracy on labelled images, in a line."""
    recorded = "" if found.recorded is None else f"; where the bundle was made: {found.recorded:.2%}"
    return Text(f"accuracy here: {found.accuracy:.2%}, {found.right:,} of {counted(found.images, 'image')}{recorded}")


def preparation_line(preparation: Preparation) -> Text:
    """The check of preprocessing on golden images, in a line."""
    images = counted(preparation.images, "golden image")
    if preparation.skipped:
        return Text(f"{images} NOT PREPARED HERE: {preparation.skipped}", style="bold yellow")
    if preparation.passed:
        return Text(f"{images} prepared here, from file to input: the same", style="green")
    return Text(
        f"{images} prepared here: NOT THE SAME, up to {preparation.largest_levels:.3g} levels of 255 off",
        style="bold red",
    )


def parity_table(verdict: Verdict, torch: Mapping[str, float] | None = None, reference: str = FLOAT64) -> Table:
    """Distance from ``reference`` by golden case, with the limit, and PyTorch's own for comparison."""
    table = Table(title=f"distance from {reference}", title_justify="left", title_style="bold")
    table.add_column("golden inputs")
    classifies = not all(d.top1_agreement is None for d in verdict.distances.values()) or not verdict.distances
    own, same = ["PyTorch itself"] if torch else [], ["same class"] if classifies else []
    for heading in ("samples", "relative L2", "limit", *own, *same, ""):
        table.add_column(heading, justify="right")
    limits = {c.case: c.limit for c in verdict.checks if c.quantity == "relative L2"}
    failed = {c.case for c in verdict.failures}
    for case in dict.fromkeys(c.case for c in verdict.checks):
        d = verdict.distances.get(case)
        figures = ["–"] * 3 if d is None else [str(d.samples), f"{d.relative_l2:.1e}", f"{limits[case]:.0e}"]
        own = [f"{torch[case]:.1e}"] if torch else []
        same = ["–" if d is None else or_dash(d.top1_agreement, ".0%")] if classifies else []
        table.add_row(Text(case), *figures, *own, *same, "[red]FAIL[/]" if case in failed else "[green]ok[/]")
    return table


def verdict_line(verdict: Verdict) -> Text:
    """PASSED or FAILED, in words."""
    if verdict.passed:
        return Text(
            f"PASSED: {counted(len(verdict.checks), 'check')} over {counted(len(verdict.distances), 'golden case')}",
            style="bold green",
        )
    return Text(f"FAILED: {len(verdict.failures)} of {len(verdict.checks)} checks", style="bold red")


def layer_table(result: Verification) -> Table:
    """Error against depth, with a bar on a logarithmic scale."""
    table = Table(title="error against depth", title_justify="left", title_style="bold")
    table.add_column("layer")
    table.add_column("relative L2", justify="right")
    table.add_column("1e-8 … 1 (logarithmic)")
    for name, distance in result.layers:
        error = distance.relative_l2
        length = round(4 * (min(max(log10(error) if error > 0 else -8, -8), 0) + 8))
        style = "red" if not error <= result.layer_limit else "green"
        table.add_row(Text(name), f"{error:.1e}", Text("█" * length, style=style))
    return table


def layer_line(result: Verification) -> Text:
    """The first layer that diverges, in a line."""
    if result.diverges_at is None:
        return Text(f"no layer is further from the reference than {result.layer_limit:.0e}", style="green")
    return Text(f"first layer beyond {result.layer_limit:.0e}: {result.diverges_at}", style="bold red")
