"""Translate a bundle's ONNX graph to a program of Core ML's, operator by operator. Read this first in coreml/.

Every operator has an emitter in the table of its module; one that has none is refused by name. coremltools' builder checks
the type and shape of each operator as it is appended; none of its passes changes the program, and its converters of PyTorch
have no part.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_deploy.graph.metadata import metadata_of
from s2mlp_exporters.coreml import arithmetic, layers, moves
from s2mlp_exporters.coreml.package import CONTENTS, PROGRAM, WEIGHTS, contents
from s2mlp_exporters.coreml.program import COLOUR_SPACES, SPECIFICATION
from s2mlp_exporters.coreml.toolkit import load
from s2mlp_exporters.coreml.translation import Constant, Emitter, Pixels, Translation

if TYPE_CHECKING:
    import onnx_ir as ir

EMITTERS: dict[str, Emitter] = {**arithmetic.EMITTERS, **layers.EMITTERS, **moves.EMITTERS}

FORMAT = "coreml"

MOST_IMAGES = 64
"""Images of a batch where it is free: Core ML wants a limit."""


def translate(path: Path, destination: Path) -> None:
    """Write the package of the ONNX model at ``path``, with its metadata, into the directory ``destination``.

    Raises:
        RuntimeMissingError: where coremltools is not here.
        CompilerError: where the graph has an operator that has no translation.
        UsageError: where its input has another free axis than the batch, or is an image and the batch is not one.
    """
    import onnx_ir as ir

    model = ir.load(path)
    program = _program(model.graph)
    for name in (PROGRAM, WEIGHTS):
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
    exporter = load("coremltools.converters.mil.backend.mil.load").MILProtoExporter
    spec = load("coremltools.proto.Model_pb2").Model(specificationVersion=SPECIFICATION)
    spec.mlProgram.CopyFrom(exporter(program, str((destination / WEIGHTS).parent), SPECIFICATION).export())
    _describe(spec, model)
    (destination / CONTENTS).write_bytes(contents())
    (destination / PROGRAM).write_bytes(spec.SerializeToString(deterministic=True))


def _program(graph: ir.Graph) -> Any:
    """The MIL program of ``graph``."""
    mil = load("coremltools.converters.mil.mil")
    program, t = mil.Program(), Translation()
    for name, value in graph.initializers.items():
        assert value.const_value is not None
        t.define(name, Constant(name, value.const_value.numpy()))
    (given,) = graph.inputs
    name, shape = str(given.name), _input_shape(given)
    placeholder = t.mb.placeholder(shape=shape, dtype=mil.types.fp16 if _is_half(given) else mil.types.fp32)
    with mil.Function({name: placeholder}, opset_version=load().target.iOS16) as function:
        t.label(name)
        source = function.inputs[name]
        t.define(name, Pixels(source) if _is_image(given) else source)
        for node in (Node.of(node, FORMAT) for node in graph):
            node.translated_by(EMITTERS)(t, node)
        function.set_outputs([t.written(t.value(str(value.name))) for value in graph.outputs])
    program.add_function("main", function)
    return program


def _is_image(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.numpy() == "uint8"


def _input_shape(value: ir.Value) -> tuple[Any, ...]:
    """The shape of the program's input: channels first, and a symbol for a free batch."""
    assert value.shape is not None
    free = [i for i, n in enumerate(value.shape) if not isinstance(n, int)]
    if free not in ([], [0]):
        raise UsageError("--format coreml has one size of images for a package: leave out --dynamic-size")
    if _is_image(value):
        batch, height, width, channels = value.shape
        if batch != 1:
            raise UsageError("--input uint8 with --format coreml: Core ML takes one image at a time, so add --batch 1")
        return 1, channels, height, width
    symbol = load("coremltools.converters.mil.mil").get_new_symbol
    return tuple(n if isinstance(n, int) else symbol() for n in value.shape)


def _describe(spec: Any, model: ir.Model) -> None:
    """State input and outputs as an app has them, and the metadata of the ONNX model."""
    description = spec.description
    (given,) = model.graph.inputs
    feature = description.input.add(name=str(given.name))
    assert given.shape is not None
    if _is_image(given):
        _, height, width, channels = (n for n in given.shape if isinstance(n, int))
        feature.type.imageType.height, feature.type.imageType.width = height, width
        feature.type.imageType.colorSpace = COLOUR_SPACES[channels]
    else:
        array = feature.type.multiArrayType
        array.dataType = _array_type(given)
        free = not isinstance(given.shape[0], int)
        array.shape.extend(n if isinstance(n, int) else 1 for n in given.shape)
        for i, n in enumerate(array.shape if free else ()):
            array.shapeRange.sizeRanges.add(lowerBound=n, upperBound=MOST_IMAGES if i == 0 else n)
    for value in model.graph.outputs:
        description.output.add(name=str(value.name)).type.multiArrayType.dataType = _array_type(value)
    description.metadata.shortDescription = "Made by s2mlp-deploy; s2mlp-verify checks the bundle that it lies in"
    for key, text in metadata_of(model).items():
        description.metadata.userDefined[key] = text


def _array_type(value: ir.Value) -> int:
    types = load("coremltools.proto.FeatureTypes_pb2").ArrayFeatureType.ArrayDataType
    return int(types.Value("FLOAT16" if _is_half(value) else "FLOAT32"))


def _is_half(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.numpy() == "float16"
