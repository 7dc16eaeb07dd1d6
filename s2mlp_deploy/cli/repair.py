"""``s2mlp-repair``: the data movement of an ONNX file written plainly, and checked bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from s2mlp_deploy.cli import option_values
from s2mlp_deploy.cli.help import section
from s2mlp_deploy.cli.options import (
    CardOption,
    JsonOption,
    LicenseOption,
    SbomOption,
    SignCertificateOption,
    SignOption,
    check_option,
    output_option,
)
from s2mlp_deploy.cli.terminal import ConsoleListener, command, show
from s2mlp_deploy.schema.shift import Semantics

if TYPE_CHECKING:
    from s2mlp_deploy.pipeline.repair.request import RepairResult

graph_option = section("Graph")


def repair(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL.onnx", readable=False, help="An ONNX file, whichever exporter wrote it."),
    ],
    reference: Annotated[
        Path | None,
        check_option(
            metavar="FILE",
            help="Inputs and outputs recorded from your model, by the names that they have in the ONNX file (.safetensors or .npz).",
        ),
    ] = None,
    shift_semantics: Annotated[
        Literal[Semantics, "auto"] | None,
        check_option(
            metavar="SEMANTICS",
            help="Of statements that shift in place: as exported (paper), as PyTorch computes them on one thread (inplace), or "
            "whichever the reference shows (auto); else as the reference shows, else as exported.",
        ),
    ] = None,
    prefer: Annotated[
        Literal["gather", "slice", "auto"],
        graph_option(
            metavar="OPERATORS",
            help="What to write where both are exact: one Gather (gather), Slice, Pad and Concat (slice), or what is fastest (auto).",
        ),
    ] = "auto",
    output: Annotated[
        Path | None,
        output_option("-o", "--output", metavar="DIR", help="The bundle; else STEM-repaired here."),
    ] = None,
    force: Annotated[bool, output_option("--force", help="Replace a bundle that is there.")] = False,
    sbom: SbomOption = False,
    card: CardOption = False,
    license: LicenseOption = None,
    sign: SignOption = None,
    sign_certificate: SignCertificateOption = None,
    latency: Annotated[
        bool, output_option("--latency", help="Time the file and its repair, side by side on this machine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the shifts in an ONNX file plainly, and publish the result where it gives the same bits. Needs no torch."""
    from s2mlp_deploy.pipeline.repair.repair import repair_file
    from s2mlp_deploy.pipeline.repair.request import RepairRequest
    from s2mlp_deploy.pipeline.request import OutputOptions

    destination = OutputOptions(output, force, sbom, option_values.signing_key(sign, sign_certificate), card, license)
    request = RepairRequest(model, reference, shift_semantics, prefer, latency, destination)
    result = repair_file(request, ConsoleListener())
    if as_json:
        show(_json(result))
        return
    from s2mlp_deploy.cli import repair_tables

    show(repair_tables.repair(result, model))


def _json(result: RepairResult) -> dict[str, Any]:
    made = result.export
    return {
        "bundle": str(made.bundle.directory) if made else None,
        "passed": made.verdict.passed if made and made.verdict else None,
        "repair": result.record.model_dump(mode="json"),
        "custom_operators": dict(result.custom_operators),
        "manifest": made.bundle.manifest.model_dump(mode="json") if made else None,
        "report": made.report.as_dict() if made else None,
    }


main = command(repair, "model.onnx", "model.onnx --reference recorded.npz")
