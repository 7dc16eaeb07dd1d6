"""``s2mlp-inspect``: what a checkpoint or a bundle holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2mlp_deploy.cli import option_values
from s2mlp_deploy.cli.options import DirectionsOption, JsonOption, LayoutOption, SizeOption, WeightsOption
from s2mlp_deploy.cli.terminal import command, show, torch_needed
from s2mlp_deploy.errors import UsageError


def inspect(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT|BUNDLE", readable=False, help="The checkpoint (.pt, .pth, .bin or .safetensors), or a bundle."
        ),
    ],
    layout: LayoutOption = None,
    weights: WeightsOption = None,
    image_size: SizeOption = None,
    shift_directions: DirectionsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a checkpoint or a bundle holds.

    Of a checkpoint: layout, architecture, parameters, multiply-adds, warnings. Of a bundle: what its manifest says, without
    torch.
    """
    from s2mlp_deploy.bundle.read import read_bundle
    from s2mlp_deploy.pipeline.request import Source, refuse_settled

    if Source(source).is_bundle:
        given = {"layout": layout, "weights": weights, "image_size": image_size, "shift_directions": shift_directions}
        refuse_settled([name for name, value in given.items() if value is not None], source)
        bundle = read_bundle(source)
        if as_json:
            show(
                {
                    "bundle": str(source),
                    "signature": bundle.signature.state,
                    "manifest": bundle.manifest.model_dump(mode="json"),
                }
            )
        else:
            from s2mlp_deploy.cli import bundle_tables

            show(bundle_tables.bundle(bundle))
        return
    with torch_needed():
        from s2mlp_deploy.checkpoint.load import checkpoint_notes, checkpoint_warnings, load_checkpoint
        from s2mlp_deploy.cli import tables
        from s2mlp_deploy.families.registry import find_layout
        from s2mlp_deploy.pipeline import resolve_preprocessing

    size = option_values.size("--image-size", image_size)
    checkpoint = load_checkpoint(
        source,
        layout=find_layout(layout) if layout is not None else None,
        wrapper=weights,
        image_size=size,
        offsets=option_values.directions(shift_directions),
    )
    warnings = [*checkpoint_notes(checkpoint), *checkpoint_warnings(checkpoint)]
    preprocessing = None
    try:
        stated = Source(source, image_size=size)
        preprocessing = resolve_preprocessing.preprocessing_for(checkpoint, stated)
        warnings += resolve_preprocessing.warnings(checkpoint, stated, preprocessing)
    except UsageError as error:  # an export would need an option here
        warnings = [*warnings, str(error)]
    if as_json:
        show(tables.inspection_json(checkpoint, preprocessing, warnings))
    else:
        show(tables.inspection(checkpoint, preprocessing, warnings))


main = command(inspect, "best.pt", "best-onnx-fp32")
