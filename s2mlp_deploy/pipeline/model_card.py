"""Write a model card for ``--card``: README.md in the form of Hugging Face's hub, from a bundle's manifest and report.

The same manifest and report give the same card: it holds no time, machine or directory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from s2mlp_deploy.bundle.card import sealed
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.formats.base import Format
from s2mlp_deploy.schema.manifest import Manifest, Preprocessing
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.report import Report
from s2mlp_deploy.schema.spec import Spec

LIBRARY = "s2mlp-deploy"

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")

_LANGUAGES = {"python": "Python", "js": "JavaScript"}

_RESIZE = {
    "shorter": "Cut out the centred part with the proportions {width}:{height}{crop}, and resize it to {width}×{height}",
    "shorter-then-crop": "Resize until the shorter side fits{crop}, then cut out the centre of {width}×{height}",
    "squash": "Resize to {width}×{height}, whatever the proportions{crop}",
}


def check_license(name: str) -> None:
    """Refuse a licence that is not an identifier as the hub writes them.

    Raises:
        UsageError: where it is none.
    """
    if not _LICENSE.fullmatch(name):
        raise UsageError(
            f"--license {name!r}: expected an identifier as on the hub, such as apache-2.0, mit, cc-by-4.0 or other"
        )


def model_card(manifest: Manifest, report: Report, target: Format, license: str | None) -> str:
    """The card of the bundle that ``manifest`` and ``report`` describe, whose artifact has the format ``target``."""
    title = f"{_title(manifest)}, {manifest.precision}, {manifest.format}"
    parts = [*_metadata(manifest, report, title, license), "", f"# {title}", "", _introduction(manifest), ""]
    parts += _figures(manifest, report)
    if isinstance(manifest.spec, Spec):
        parts += _preparation(manifest.spec, manifest.images)
        parts += _classes(manifest)
    parts += _use(manifest, target)
    return sealed("\n".join(parts) + "\n")


def _title(manifest: Manifest) -> str:
    return family_of(manifest.spec).title if isinstance(manifest.spec, Spec) else "Repaired ONNX network"


def _metadata(manifest: Manifest, report: Report, title: str, license: str | None) -> Iterator[str]:
    """The block of YAML that the hub reads; strings are written as JSON, which YAML contains."""
    classifies = isinstance(manifest.spec, Spec)
    yield "---"
    if license:
        yield f"license: {json.dumps(license)}"
    yield f"library_name: {LIBRARY}"
    if classifies:
        yield "pipeline_tag: image-classification"
    yield "tags:"
    names = [family_of(manifest.spec).name] if isinstance(manifest.spec, Spec) else ["repaired"]
    yield from (f"- {json.dumps(tag)}" for tag in dict.fromkeys([*names, "onnx", manifest.format, manifest.precision]))
    if report.accuracy is not None:
        yield from (
            "metrics:",
            "- accuracy",
            "model-index:",
            f"- name: {json.dumps(title, ensure_ascii=False)}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            "      type: imagefolder",
            "      name: the publisher's labelled images",
            "    metrics:",
            "    - type: accuracy",
            f"      value: {round(report.accuracy, 6)}",
        )
    yield "---"


def _introduction(manifest: Manifest) -> str:
    spec = manifest.spec
    made = f"made by {LIBRARY} {manifest.tool_version}"
    if isinstance(spec, OnnxNetwork):
        return f"A network of {spec.parameters:,} parameters whose shifts were written plainly, {made}."
    assert isinstance(spec, Spec)
    height, width = spec.image_size
    shift = f", {spec.semantics} shift" if spec.semantics else ""
    return (
        f"A classifier of {width}×{height} images in {spec.classes} classes with {spec.parameters():,} parameters{shift}, {made} from the checkpoint with "
        f"SHA-256 `{manifest.source.sha256}`."
    )


def _figures(manifest: Manifest, report: Report) -> Iterator[str]:
    yield from ("## Figures", "")
    if report.accuracy is not None:
        yield from (f"Accuracy on the publisher's labelled images: {report.accuracy:.2%}.", "")
    if not report.distances:
        words = {"pending a device": "was not run yet: `s2mlp-verify` completes its check on a device"}
        yield from (f"The artifact {words.get(manifest.verdict, 'was not checked')}.", "")
        return
    compared = "logits from those in float64" if isinstance(manifest.spec, Spec) else "outputs from the network's own"
    yield f"Distance of the {compared}, on the golden inputs in `golden.safetensors`:"
    yield from ("", "| golden inputs | samples | relative L2 | cosine |", "|---|---|---|---|")
    for case, d in report.distances.items():
        yield f"| {case} | {d.samples} | {d.relative_l2:.1e} | {d.cosine:.6f} |"
    yield ""


def _preparation(spec: Spec, images: Preprocessing) -> Iterator[str]:
    height, width = spec.image_size
    crop = "" if images.crop_fraction == 1 else f", of which {images.crop_fraction:g} is kept"
    resize = _RESIZE[images.resize].format(width=width, height=height, crop=crop)
    mean, std = (", ".join(f"{v:g}" for v in values) for values in (images.mean, images.std))
    yield from (
        "## Preparing images",
        "",
        f"1. Turn the image upright by its EXIF orientation, and convert it to {images.channel_order}.",
        f"2. {resize}, with Pillow's {images.interpolation} filter.",
        f"3. Scale to 0…1, subtract the mean ({mean}), and divide by the standard deviation ({std}).",
        "",
    )
    if images.assumed:
        yield from (f"Assumed, as neither checkpoint nor publisher said: {', '.join(images.assumed)}.", "")


def _classes(manifest: Manifest) -> Iterator[str]:
    if manifest.labels:
        shown = ", ".join(_plain(name) for name in manifest.labels[:20])
        more = f", and {len(manifest.labels) - 20:,} more in `manifest.json`" if len(manifest.labels) > 20 else ""
        yield from (f"Classes, from 0 on: {shown}{more}.", "")


def _plain(text: str) -> str:
    """A label that came with a checkpoint, in code, so that nothing in it is markup."""
    return "`" + "".join(c if c.isprintable() and c != "`" else "�" for c in text[:100]) + "`"


def _use(manifest: Manifest, target: Format) -> Iterator[str]:
    yield from ("## Use", "")
    for language, code in target.examples(manifest).items():
        before = _prepare(manifest) if language == "python" and isinstance(manifest.spec, Spec) else ()
        yield from (f"{_LANGUAGES[language]}:", "", f"```{language}", *before, code, "```", "")
    yield f"`s2mlp-verify .` of {LIBRARY} checks it on your machine, against the golden tensors that it carries."


def _prepare(manifest: Manifest) -> Iterator[str]:
    """Python that prepares a picture for the artifact's input: the variable ``prepared``."""
    (height, width), images = manifest.classifier.image_size, manifest.images
    yield from ("import numpy as np", "from PIL import Image, ImageOps", "")
    yield f'image = ImageOps.exif_transpose(Image.open("picture.png")).convert("{images.channel_order}")'
    if manifest.interface.input != "image":
        yield from _resize(images, height, width)
        height_and_width = f"{height}, {width}"
    else:
        height_and_width = "image.height, image.width"
    prepared = f"np.asarray(image).reshape(1, {height_and_width}, {len(images.mean)})"
    if manifest.interface.input == "float":
        yield f"pixels = {prepared}.astype(np.float32) / 255"
        yield f"prepared = (pixels - np.float32({list(images.mean)})) / np.float32({list(images.std)})"
        yield f"prepared = prepared.transpose(0, 3, 1, 2).astype(np.{manifest.input.dtype})"
    else:
        yield f"prepared = {prepared}"
    if (manifest.batch or 1) > 1:
        yield f"prepared = prepared.repeat({manifest.batch}, axis=0)"
    yield ""


def _resize(images: Preprocessing, height: int, width: int) -> Iterator[str]:
    """Python that resizes ``image`` as docs/preprocessing.md says: one axis at a time, along rows first."""
    fraction, filter = images.crop_fraction, f"Image.Resampling.{images.interpolation.upper()}"
    yield "w, h = image.size"
    if images.resize == "shorter-then-crop":
        scaled_w, scaled_h = int(width / fraction), int(height / fraction)
        yield f"wide = w * {scaled_h} > h * {scaled_w}"
        yield f"size = (int({scaled_h} * w / h), {scaled_h}) if wide else ({scaled_w}, int({scaled_w} * h / w))"
        yield f"image = image.resize((size[0], h), {filter}).resize(size, {filter})"
        yield f"left, top = round((size[0] - {width}) / 2), round((size[1] - {height}) / 2)"
        yield f"image = image.crop((left, top, left + {width}, top + {height}))"
        return
    if images.resize == "squash":
        yield "box_w, box_h = w, h"
    else:
        yield f"box_w, box_h = ({width} / {height} * h, h) if w / h >= {width} / {height} else (w, w / ({width} / {height}))"
    if fraction < 1:
        yield f"box_w, box_h = box_w * {fraction!r}, box_h * {fraction!r}"
    yield "left, top = (w - box_w) * 0.5, (h - box_h) * 0.5"
    yield f"image = image.resize(({width}, h), {filter}, (left, 0, left + box_w, h))"
    yield f"image = image.resize(({width}, {height}), {filter}, (0, top, {width}, top + box_h))"
