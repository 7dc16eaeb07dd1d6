"""Options that several commands share, and the sections of ``--help`` that they stand in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from s2mlp_deploy.cli.help import one_of, section
from s2mlp_deploy.schema.choices import CalibrationMethod, Interpolation, Resize
from s2mlp_deploy.schema.shift import Semantics

checkpoint_option = section("Checkpoint")
check_option = section("Checks")
output_option = section("Output")
image_option = section("Images")
int8_option = section("With --precision int8")

CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CKPT", readable=False, help="The checkpoint: .pt, .pth, .bin or .safetensors.")
]
LayoutOption = Annotated[
    str | None,
    checkpoint_option(metavar="NAME|FILE.toml", help="How the checkpoint names its keys; found by itself if known."),
]
WeightsOption = Annotated[
    str | None,
    checkpoint_option(metavar="NAME", help="The entry of the checkpoint that holds the weights, if there are several."),
]
SizeOption = Annotated[
    str | None, checkpoint_option(metavar="N|HxW", help="Image size; else as the checkpoint records, else 224.")
]
DirectionsOption = Annotated[
    str | None,
    checkpoint_option(
        metavar="SET|h+,h-,…",
        help="The direction set that the model was trained with (4, 8, horizontal or vertical), or the direction of each "
        "channel group in order, h being the height; else as the layout declares, else 4.",
    ),
]
JsonOption = Annotated[
    bool, output_option("--json", help="Print one JSON document, whatever happens: errors are JSON, too.")
]
MlflowOption = Annotated[
    str | None,
    output_option(metavar="URI", help="Log each export to this MLflow store: http://HOST:PORT, or sqlite:///FILE."),
]
SignOption = Annotated[
    Path | None,
    output_option(
        metavar="KEY.pem",
        help="Sign the bundle with this private key; S2MLP_SIGN_PASSWORD holds the password of an encrypted one.",
    ),
]
SignCertificateOption = Annotated[
    Path | None,
    output_option(
        "--sign-certificate",
        metavar="CERT.pem",
        help="The key's certificate, followed by those that lead to its authority.",
    ),
]
SbomOption = Annotated[
    bool, output_option("--sbom", help="Put a software bill of materials into the bundle (CycloneDX).")
]
CardOption = Annotated[
    bool, output_option("--card", help="Write a model card into the bundle: README.md, as Hugging Face's hub shows it.")
]
LicenseOption = Annotated[
    str | None, output_option("--license", metavar="ID", help="The licence that the card names, as in apache-2.0.")
]
KeyOption = Annotated[
    Path | None,
    check_option(
        "--key", metavar="PUB.pem", help="Refuse a bundle that was not signed with this public key's private one."
    ),
]
CertificateOption = Annotated[
    Path | None,
    check_option(
        "--certificate",
        metavar="CA.pem",
        help="Refuse a bundle that was not signed with a certificate of this authority.",
    ),
]
RequireSignatureOption = Annotated[
    bool,
    check_option(
        "--require-signature", help="Fail unless --key or --certificate is given, for scripts that might lose it."
    ),
]
PlotOption = Annotated[
    Path | None,
    output_option(metavar="FILE.png", help="Draw error against depth, one line a bundle; or .svg, or .pdf."),
]
SemanticsOption = Annotated[
    Literal[Semantics, "auto"] | None,
    checkpoint_option(
        metavar="SEMANTICS",
        help="The paper's shift (paper), the in-place code's (inplace), or whichever the evidence supports (auto); else "
        "as the layout declares, else paper.",
    ),
]
MeanOption = Annotated[
    str | None,
    image_option(metavar="M,M,M", help="Mean of each channel, or one for all, of pixels in 0…1 (or 0…255)."),
]
StdOption = Annotated[str | None, image_option(metavar="S,S,S", help="Standard deviation of each channel.")]
ResizeOption = Annotated[
    Resize | None,
    image_option(
        metavar="METHOD",
        help="How images come to the model's size: the shorter side and a centre crop, in one step (shorter) or as "
        "timm does (shorter-then-crop), or squashed (squash). Else as the checkpoint records, else shorter.",
    ),
]
InterpolationOption = Annotated[
    Interpolation | None,
    image_option(
        metavar="FILTER",
        help=f"The filter, as Pillow calls it; else as recorded, else bicubic. {one_of(Interpolation)}",
    ),
]
CropFractionOption = Annotated[
    float | None,
    image_option(metavar="SHARE", help="What a centre crop keeps (timm's crop_pct); else as recorded, else 1."),
]
LabelsOption = Annotated[
    Path | None,
    image_option(
        metavar="FILE|DIR",
        help="Class names: a line each, or JSON, or a folder with one subfolder a class, in sorted order; else as the checkpoint records.",
    ),
]
ReferenceOption = Annotated[
    Path | None,
    check_option(metavar="FILE", help="Inputs and logits recorded from your model (.safetensors or .npz)."),
]
DataOption = Annotated[
    Path | None,
    check_option(metavar="DIR", help="Labelled images, one subfolder a class: accuracy is checked on them."),
]
DataCountOption = Annotated[int, check_option(metavar="N", min=1, help="How many of them to use at most.")]
GoldenImagesOption = Annotated[
    Path | None,
    check_option(metavar="DIR", help="Images that travel in the bundle, for apps to test with; else some of --data."),
]
CalibrationOption = Annotated[
    str | None,
    int8_option(
        metavar="DIR|FILE",
        help="Images (or prepared inputs: .npy, .npz, .safetensors) that ranges are taken from; or synthetic: noise, "
        "for measuring speed alone.",
    ),
]
CalibrationCountOption = Annotated[int, int8_option(metavar="N", min=1, help="How many of them to use at most.")]
CalibrationMethodOption = Annotated[
    CalibrationMethod,
    int8_option(
        metavar="METHOD",
        help=f"Take the whole range that occurs (minmax), or clip what is rare. {one_of(CalibrationMethod)}",
    ),
]
MinAgreementOption = Annotated[
    float,
    int8_option(metavar="SHARE", min=0, max=1, help="Images that must keep their class, without --data, 0 to 1."),
]
