"""``python -m s2mlp_studies.scale CKPT`` measures how latency and memory grow with image size, batch and depth."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Annotated

from rich.console import Console

from s2mlp_bench.common_options import (
    ForceOption,
    JsonFileOption,
    RoundsOption,
    SamplesOption,
    SecondsOption,
    load_option,
    measurement_option,
)
from s2mlp_deploy.cli.options import (
    CheckpointArgument,
    DirectionsOption,
    LayoutOption,
    WeightsOption,
    checkpoint_option,
    output_option,
)
from s2mlp_deploy.cli.terminal import ConsoleListener, command, show
from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.schema.shift import Semantics
from s2mlp_deploy.system.dependencies import pip_install


def scale(
    checkpoint: CheckpointArgument,
    image_size: Annotated[
        str | None,
        load_option(
            metavar="N,HxW", help="Image sizes; else the checkpoint's own, and four with twice as many patches each."
        ),
    ] = None,
    batch: Annotated[str, load_option(metavar="N,N", help="Batch sizes.")] = "1,2,4,8",
    depth: Annotated[
        str, load_option(metavar="P/Q,P/Q", help="Shares of each stage's blocks, rounded up to whole ones.")
    ] = "1/4,1/2,1",
    threads: Annotated[int, load_option(metavar="N", min=1, help="Threads of the processor.")] = 1,
    rounds: RoundsOption = 10,
    min_seconds: SecondsOption = 10.0,
    seed: Annotated[
        int, measurement_option(metavar="N", min=0, help="Draws orders, inputs, and the weights of MLP-Mixers.")
    ] = 0,
    layout: LayoutOption = None,
    weights: WeightsOption = None,
    shift_semantics: Annotated[
        Semantics | None,
        checkpoint_option(
            metavar="SEMANTICS",
            help="The paper's shift (paper), or the in-place code's (inplace); else as the layout declares.",
        ),
    ] = None,
    shift_directions: DirectionsOption = None,
    as_json: SamplesOption = False,
    json_file: JsonFileOption = None,
    png_file: Annotated[
        Path | None,
        output_option("--png", metavar="FILE", help="Draw latency against positions to FILE; or .svg, or .pdf."),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Measure how a checkpoint's latency and memory grow, beside an MLP-Mixer of its form."""
    # Threads of other libraries that wait busily would run at the cost of whoever is timed then.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from s2mlp_bench import environment
    from s2mlp_bench.report import pictures
    from s2mlp_bench.results import output
    from s2mlp_deploy.cli.option_values import directions, numbers, sizes
    from s2mlp_studies.scale import document, plot, table
    from s2mlp_studies.scale.scaling import Plan, default_sizes

    try:
        from s2mlp_deploy.checkpoint.load import load_checkpoint
        from s2mlp_deploy.families.registry import find_layout
        from s2mlp_deploy.families.s2mlp.spec import only_s2mlp
        from s2mlp_studies.scale.measure import measure
    except ModuleNotFoundError as error:
        raise RuntimeMissingError(
            f"reading a checkpoint needs the package {error.name}, which is not installed: {pip_install('export')}"
        ) from error

    for path in (json_file, png_file):
        output.check_writable(path, replace=force)
    if png_file:
        pictures.check(png_file)
    given = sizes("--image-size", image_size) if image_size is not None else None
    batches, depths = numbers("--batch", batch), _shares("--depth", depth)
    source = load_checkpoint(
        checkpoint,
        layout=find_layout(layout) if layout is not None else None,
        wrapper=weights,
        offsets=directions(shift_directions),
        semantics=shift_semantics,
    )
    plan = Plan(
        given or default_sizes(only_s2mlp(source.spec, "scaling is measured beside an MLP-Mixer of its form")),
        batches,
        depths,
        threads,
        rounds,
        min_seconds,
        seed,
    )
    if png_file and len({prod(source.spec.map_sizes(size)[0]) for size in plan.sizes}) < 2:
        raise UsageError(
            "--png draws latency against image size: give --image-size two with different numbers of positions"
        )
    around = environment.describe()
    found = measure(source, plan, ConsoleListener())
    content = document.document(found, source.sha256, around)
    if json_file:
        output.write_json(json_file, content)
    if png_file:
        output.write(png_file, plot.picture(found, png_file.suffix.lower()))
    if as_json:
        show(content)
        return
    Console(highlight=False, width=None if os.isatty(1) else 120).print(table.render(found, around))


def _shares(option: str, text: str) -> tuple[Fraction, ...]:
    """Shares of a whole, each once, in the order given.

    Raises:
        UsageError: where ``text`` is something else.
    """
    return tuple(dict.fromkeys(_share(option, part) for part in text.split(",")))


def _share(option: str, text: str) -> Fraction:
    match = re.fullmatch(r"([0-9]{1,3})(?:/([0-9]{1,3}))?", text)
    if match and int(match[2] or 1) and 0 < (share := Fraction(int(match[1]), int(match[2] or 1))) <= 1:
        return share
    raise UsageError(f"{option} {text!r}: expected shares of the whole with commas between, as in 1/4,1/2,1")


main = command(scale)

if __name__ == "__main__":
    main()
