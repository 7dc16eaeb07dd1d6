"""The manifest: the facts about an artifact that a reader needs to run and check it.

It holds no time, host or path, so that the same export gives the same bytes. Reading is strict:
an unknown field, version or file name is an error, not something to skip.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    InstanceOf,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    field_serializer,
    model_validator,
)

from s2mlp_deploy.errors import BundleError, SpecError, UsageError
from s2mlp_deploy.schema.choices import InputKind, Interpolation, OutputKind, Resize
from s2mlp_deploy.schema.precision import PRECISIONS, FloatType
from s2mlp_deploy.schema.spec import Network, Spec
from s2mlp_deploy.schema.strict_model import Count, StrictModel
from s2mlp_deploy.schema.tensor_entry import TensorEntry
from s2mlp_deploy.schema.tolerance import Tolerance
from s2mlp_deploy.system import strict_json

SCHEMA_VERSION: Literal[1] = 1


VERSION = re.compile("[1-9][0-9]{0,8}")
"""The name of a directory in a bundle, for servers that keep each version of a model in one. It holds only files."""

PACKAGE = re.compile("[a-z]{1,20}\\.mlpackage")
"""The name of a directory in a bundle that is one model, as Core ML has it. It may hold directories."""

DEEPEST = 5
"""Parts of a file's name in a bundle, the file itself among them; only a package has more than two."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}"


# On Windows these are devices, whatever the directory and the suffix, and a last dot is dropped.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?|.*\.", re.IGNORECASE)

MOST_FILES = 1000
"""Files of a bundle, of which there are some forty at most, and settings of an engine."""

MOST_ENTRIES = 200_000
"""Most values and keys of a manifest, nearly all of them labels: listing the errors of millions takes minutes."""


def _plain_name(name: str) -> str:
    if not re.fullmatch(_NAME, name) or _DEVICE.fullmatch(name):
        raise ValueError(f"{reprlib.repr(name)} is not a plain file name")
    return name


def _place(name: str) -> str:
    *directories, file = name.split("/")
    known = not directories or bool(
        (VERSION.fullmatch(directories[0]) and len(directories) == 1)
        or (PACKAGE.fullmatch(directories[0]) and len(directories) < DEEPEST)
    )
    if not known or not all(re.fullmatch(_NAME, part) and not _DEVICE.fullmatch(part) for part in (*directories, file)):
        raise ValueError(f"{reprlib.repr(name)} is not a plain file name, nor one in a numbered directory or a package")
    return name


FileName = Annotated[str, AfterValidator(_plain_name)]
FilePlace = Annotated[str, AfterValidator(_place)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Setting = StrictBool | StrictInt | StrictFloat | StrictStr | tuple[StrictStr, ...]
"""A setting of a compiler, or one for loading its artifact."""


class Source(StrictModel):
    """The checkpoint that the artifact was made from."""

    sha256: Sha256
    layout: str
    weights: str | None = None
    dtypes: tuple[str, ...]


class Preprocessing(StrictModel):
    """The steps from an image to the input, as in docs/preprocessing.md: turn upright, take ``channel_order``,
    resize and crop, scale to 0…1, subtract ``mean``, divide by ``std``.

    ``mean`` and ``std`` are per channel in ``channel_order``. All filters but ``nearest`` are widened when they shrink
    (antialiased). ``assumed`` names the values that neither the checkpoint nor the user gave.
    """

    resize: Resize = "shorter"
    interpolation: Interpolation = "bicubic"
    crop_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    channel_order: Literal["RGB", "L"] = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    assumed: tuple[str, ...] = ()


class Interface(StrictModel):
    """The kinds of input and output of an artifact.

    ``input``: ``float``, prepared images; ``uint8``, images of the model's size as bytes; ``image``, an image of any
    size as bytes. ``output``: ``logits``, ``probabilities``, or the ``top5`` probabilities and their classes.
    """

    input: InputKind = "float"
    output: OutputKind = "logits"


FLOAT_LOGITS = Interface()
"""The interface of an artifact unless another is requested."""


def _known_precision(name: str) -> str:
    if name not in PRECISIONS:
        raise ValueError(f"{reprlib.repr(name)} is no precision of this release, which has {', '.join(PRECISIONS)}")
    return name


PrecisionName: TypeAlias = Annotated[str, AfterValidator(_known_precision)]


class GoldenImage(StrictModel):
    """An image in the bundle, and its class where known; docs/preprocessing.md describes its use."""

    file: FileName
    label: Count | None = None


class Quantization(StrictModel):
    """The making of an int8 artifact: the recipe's target, calibration, and the layers that stayed in float."""

    target: str
    method: str
    calibration_images: Count
    float_layers: tuple[str, ...]


def _with_batch(entry: TensorEntry) -> TensorEntry:
    if not entry.shape:
        raise ValueError("its shape has no axes, and so no batch")
    return entry


class Manifest(StrictModel):
    """``manifest.json``. ``verdict`` is the gate's result on the machine that made the bundle; it is
    pending where that machine could build an engine, but not run it.

    ``arithmetic`` is the type that a graph with float16 weights computes in; float16 where it is absent and precision
    is fp16. Of an int8 graph it is float16 where all between the products is.

    ``engine`` holds the settings that a compiled artifact was made with and is loaded with; ``graph`` the ONNX model
    that it was compiled from, where the bundle includes it.

    ``output`` is the first output; ``output_classes`` the second, where ``interface`` is ``top5``. The rows of
    the golden case ``images`` are ``golden_images``, prepared, in the same order.

    Of a network that no family describes (:class:`~s2mlp_deploy.schema.onnx_network.OnnxNetwork`) the spec has all inputs and
    outputs, ``input`` and ``output`` are the first of them, and there is no ``preprocessing``.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    tool_version: str
    format: str
    precision: PrecisionName
    arithmetic: FloatType | None = None
    lowering: str
    spec: InstanceOf[Network]
    source: Source
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None = None
    interface: Interface = FLOAT_LOGITS
    input: Annotated[TensorEntry, AfterValidator(_with_batch)]
    output: TensorEntry
    output_classes: TensorEntry | None = None
    opset: int
    quantization: Quantization | None
    engine: Annotated[dict[str, Setting], Field(max_length=MOST_FILES)] | None
    versions: dict[str, str]
    artifact: FilePlace
    graph: Annotated[tuple[FilePlace, ...], Field(max_length=MOST_FILES)]
    files: Annotated[dict[FilePlace, Sha256], Field(max_length=MOST_FILES)]
    golden_images: Annotated[tuple[GoldenImage, ...], Field(max_length=MOST_FILES)] = ()
    tolerance: Tolerance | None
    verdict: Literal["passed", "pending a device", "not judged", "for benchmarks only"]

    @field_serializer("spec")
    def _spec_to_json(self, spec: Network) -> dict[str, Any]:
        return spec.to_json()

    @model_validator(mode="after")
    def _prepares_images(self) -> Manifest:
        if isinstance(self.spec, Spec) != (self.preprocessing is not None):
            raise ValueError("preprocessing belongs to image classifiers, and to all of them")
        return self

    @property
    def classifier(self) -> Spec:
        """The spec, where it is that of an image classifier of a family.

        Raises:
            UsageError: where the bundle holds another network.
        """
        if not isinstance(self.spec, Spec):
            raise UsageError(
                "this is for image classifiers of a known architecture, and the bundle holds a network of which only its ONNX file is "
                "known: give a bundle that s2mlp-export made from a checkpoint"
            )
        return self.spec

    @property
    def images(self) -> Preprocessing:
        """The preprocessing of an image classifier.

        Raises:
            UsageError: as :attr:`classifier`.
        """
        assert self.classifier and self.preprocessing
        return self.preprocessing

    @property
    def batch(self) -> int | None:
        """The batch size of the artifact; None for any."""
        size = self.input.shape[0]
        return size if isinstance(size, int) else None

    def to_json(self) -> str:
        """The manifest as it stands in the bundle: indented, keys in the order of this class."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def parse_manifest(text: str | bytes, where: str, read_network: Callable[[Any], Network]) -> Manifest:
    """Parse the manifest in ``text``; ``where`` names it in errors.

    ``read_network`` reads the spec of any network from its JSON (:func:`s2mlp_deploy.families.registry.read_network`).

    Raises:
        BundleError: where it is not JSON, of another schema version, or not a manifest.
    """
    try:
        content = strict_json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not valid JSON ({error}): copy the bundle again") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(
            f"{where} has schema version {reprlib.repr(version)}, and this tool reads {SCHEMA_VERSION}: use the release of "
            "s2mlp-deploy that wrote the bundle, or export it again"
        )
    if _exceeds(content, MOST_ENTRIES):
        raise BundleError(f"{where} has more than {MOST_ENTRIES:,} entries, as no manifest has: copy the bundle again")
    place: tuple[int | str, ...] = ()
    try:
        if "spec" in content:
            place = ("spec",)
            content["spec"] = read_network(content["spec"])
            place = ()
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        shown = ".".join(str(p) if str(p).isprintable() else ascii(p) for p in (*place, *first["loc"]))[:200]
        raise BundleError(
            f"{where}: {shown}: {first['msg']}. The bundle was changed or damaged; copy it again"
        ) from error
    except SpecError as error:
        raise BundleError(f"{where}: spec: {error}") from error


def _exceeds(content: Any, most: int) -> bool:
    """Whether there are more than ``most`` entries in ``content`` and what it holds."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (dict, list)):
            most -= len(item)
            if most < 0:
                return True
            waiting += item.values() if isinstance(item, dict) else item
    return False
