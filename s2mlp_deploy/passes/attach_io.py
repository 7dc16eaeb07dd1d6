"""Give a graph the interface of its artifact: a head that takes bytes or images, a tail that gives probabilities or the best classes.

The graph in the middle takes prepared images and gives logits, at every precision; ranges, tolerances and golden logits
are found on it. A head for bytes folds the normalization into the first convolution:

    W·(s·p − m)/d + b  =  (W·s/d)·(p − c) + (b + Σ W·(s·c − m)/d)        p: bytes, s: scale, m: mean, d: std, by channel

c is the byte nearest to the mean. Taking it away first costs nothing, and is exact, while without it large sums of
bytes would nearly cancel against the bias: on S²-MLP-wide that moved logits 25 times as far as all other rounding.

Where that convolution pads with zeros, which stand for the mean and not for the byte 0, or is quantized, the head
normalizes explicitly instead. A tail turns logits into probabilities (one logit into its sigmoid), and those into the
best classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import FunctionalPass, PassResult, PostconditionError, PreconditionError

from s2mlp_deploy.graph import io_signature, resize
from s2mlp_deploy.graph.builder import GraphBuilder, add_initializer, insert_cast
from s2mlp_deploy.graph.io_signature import BEST, CLASSES, PROBABILITIES, SCORES
from s2mlp_deploy.graph.layer import INPUT, OUTPUT
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, Interface, Preprocessing
from s2mlp_deploy.schema.tensor_entry import TensorEntry

PIXELS = f"{INPUT}/pixels"
"""The bytes as float32 (batch, channels, height, width)."""


def attach(lowered: Lowered, interface: Interface, preprocessing: Preprocessing) -> ir.Model:
    """A copy of the graph of ``lowered`` with head and tail; the graph itself where it needs none.

    Raises:
        InternalError, ParityError: as :func:`~s2mlp_deploy.passes.run_passes.run_passes`.
    """
    if interface == FLOAT_LOGITS:
        return lowered.model
    return run_passes(lowered.model, AttachIo(lowered, interface, preprocessing))


class AttachIo(FunctionalPass):
    """A copy of the graph of ``lowered`` that has ``interface``, prepares images as ``preprocessing`` says, and records the interface.

    Requires: one input and one output, called as images and logits are.
    Ensures: inputs and outputs have the names, types and shapes that a manifest records for the interface.
    """

    def __init__(self, lowered: Lowered, interface: Interface, preprocessing: Preprocessing) -> None:
        self.lowered, self.interface, self.preprocessing = lowered, interface, preprocessing

    def requires(self, model: ir.Model) -> None:
        """The graph takes prepared images and gives logits."""
        names = _names(model.graph.inputs), _names(model.graph.outputs)
        if names != ([INPUT], [OUTPUT]):
            raise PreconditionError(f"the graph takes {names[0]} and gives {names[1]}: expected {INPUT} and {OUTPUT}")

    def call(self, model: ir.Model) -> PassResult:
        copy = model.clone()
        if self.interface.input != "float":
            _attach_head(copy.graph, self.lowered, self.interface, self.preprocessing)
        if self.interface.output != "logits":
            _attach_tail(copy.graph, self.lowered, self.interface)
        copy.metadata_props["s2mlp.interface"] = self.interface.model_dump_json()
        return PassResult(copy, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """Every input and output is as the manifest records it."""
        spec, axes = self.lowered.spec, self.lowered.axes
        dtype = _type_of(self.lowered.model.graph.outputs[0])
        entries = (
            io_signature.input_entry(self.interface, spec, axes, dtype),
            *io_signature.output_entries(self.interface, spec, axes, dtype),
        )
        expected = [(entry.name, entry.dtype, list(entry.shape)) for entry in entries if entry is not None]
        found = [(str(v.name), _type_of(v), _shape_of(v)) for v in (*model.graph.inputs, *model.graph.outputs)]
        if found != expected:
            raise PostconditionError(f"the graph's interface is {found}: expected {expected}")


def _names(values: Sequence[ir.Value]) -> list[str]:
    return [str(value.name) for value in values]


def _type_of(value: ir.Value) -> str:
    return "unknown" if value.dtype is None else str(value.dtype.numpy().name)


def _shape_of(value: ir.Value) -> list[int | str | None]:
    """The dimensions of a value: numbers, or the names of those that are free."""
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape or ()]


def _attach_head(graph: ir.Graph, lowered: Lowered, interface: Interface, preprocessing: Preprocessing) -> None:
    (prepared,) = graph.inputs
    prepared.name = f"{INPUT}/prepared"
    entry = io_signature.input_entry(interface, lowered.spec, lowered.axes, "float32")
    image = ir.Value(name=INPUT, type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape(entry.shape))
    out = GraphBuilder()
    if interface.input == "image":
        planes = resize.emit_fit(out, image, preprocessing, lowered.spec.image_size)
        pixels = out.op("Cast", [planes], PIXELS, to=ir.DataType.FLOAT)
    else:
        planes = out.op("Cast", [image], f"{INPUT}/cast", to=ir.DataType.FLOAT)
        pixels = out.op("Transpose", [planes], PIXELS, perm=[0, 3, 1, 2])
    pixels.type, pixels.shape = ir.TensorType(ir.DataType.FLOAT), prepared.shape
    convolution = _foldable(prepared)
    x = _centred(out, pixels, preprocessing) if convolution else _normalized(out, pixels, preprocessing)
    out.insert_at_start(graph)
    graph.inputs[0] = image
    if convolution:
        _fold(graph, convolution, x, preprocessing)
    prepared.replace_all_uses_with(x)
    for node in [
        n for n in graph if n.op_type == "Cast" and not n.outputs[0].uses() and not n.outputs[0].is_graph_output()
    ]:
        graph.remove(node, safe=True)


def _foldable(prepared: ir.Value) -> ir.Node | None:
    """The convolution that takes the input, perhaps in half precision, if normalization can go into it."""
    users = [node for node, _ in prepared.uses()]
    if len(users) == 1 and users[0].op_type == "Cast":
        users = [node for node, _ in users[0].outputs[0].uses()]
    if len(users) != 1 or users[0].op_type != "Conv":
        return None
    (convolution,) = users
    pads = convolution.attributes.get("pads")
    padded = pads is not None and any(pads.as_ints())
    constants = (v is None or _stored(v).const_value is not None for v in convolution.inputs[1:])
    return None if padded or not all(constants) else convolution


def _stored(value: ir.Value) -> ir.Value:
    """The constant behind ``value``, which may be widened for use."""
    cast = value.producer()
    source = cast.inputs[0] if cast is not None and cast.op_type == "Cast" else None
    return value if source is None else source


def _fold(graph: ir.Graph, convolution: ir.Node, pixels: ir.Value, preprocessing: Preprocessing) -> None:
    """Let ``convolution`` read bytes, in float32 at every precision: float16 would round away the folded terms."""
    read, bias = convolution.inputs[1], convolution.inputs[2] if len(convolution.inputs) > 2 else None
    assert read is not None
    weight = _stored(read)
    assert weight.const_value is not None and weight.name is not None
    w = weight.const_value.numpy().astype(np.float64)
    mean, std = (np.array(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    b = np.zeros(len(w)) if bias is None or bias.const_value is None else bias.const_value.numpy().astype(np.float64)
    folded = {
        weight.name: w * (preprocessing.scale / std),
        f"{weight.name}.bias": b + (w * ((preprocessing.scale * _centre(preprocessing) - mean) / std)).sum((1, 2, 3)),
    }
    narrow = read.dtype if read.dtype != ir.DataType.FLOAT else None
    convolution.resize_inputs(3)
    convolution.replace_input_with(0, pixels)
    for index, (name, array) in enumerate(folded.items(), start=1):
        convolution.replace_input_with(index, add_initializer(graph, f"{name}.folded", array.astype(np.float32)))
    if read is not weight:
        graph.remove(read.producer(), safe=True)  # type: ignore[arg-type]
    for old in (weight, bias):
        if old is not None and not old.uses():
            del graph.initializers[str(old.name)]
    if narrow is not None:
        (y,) = convolution.outputs
        y.type = ir.TensorType(ir.DataType.FLOAT)
        insert_cast(graph, y, narrow, f"{y.name}/narrow")


def _centre(preprocessing: Preprocessing) -> np.ndarray:
    """The bytes nearest to the mean, (channels, 1, 1)."""
    return np.rint(np.array(preprocessing.mean) / preprocessing.scale)[:, None, None]


def _centred(out: GraphBuilder, pixels: ir.Value, preprocessing: Preprocessing) -> ir.Value:
    x = out.op("Sub", [pixels, _constant_in(out, "centre", _centre(preprocessing))], f"{INPUT}/centred")
    x.type, x.shape = pixels.type, pixels.shape
    return x


def _normalized(out: GraphBuilder, pixels: ir.Value, preprocessing: Preprocessing) -> ir.Value:
    mean, std = (np.array(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    scaled = out.op("Mul", [pixels, _constant_in(out, "scale", preprocessing.scale / std)], f"{INPUT}/scaled")
    x = out.op("Sub", [scaled, _constant_in(out, "offset", mean / std)], f"{INPUT}/normalized")
    x.type, x.shape = pixels.type, pixels.shape
    return x


def _attach_tail(graph: ir.Graph, lowered: Lowered, interface: Interface) -> None:
    (logits,) = graph.outputs
    entries: Sequence[TensorEntry | None] = io_signature.output_entries(
        interface, lowered.spec, lowered.axes, "float32"
    )
    out = GraphBuilder()
    x = _sigmoid(out, logits) if lowered.spec.classes == 1 else out.op("Softmax", [logits], PROBABILITIES, axis=-1)
    outputs = [x]
    if interface.output == "top5":
        best = out.constant(f"{SCORES}/count", np.array([min(BEST, lowered.spec.classes)]))
        outputs = [ir.Value(name=SCORES), ir.Value(name=CLASSES)]
        out.nodes.append(ir.node("TopK", [x, best], {"axis": -1}, outputs=outputs, name=SCORES))
    for value, entry in zip(outputs, entries, strict=False):
        assert entry is not None
        value.type = ir.TensorType(ir.DataType.INT64 if entry.dtype == "int64" else ir.DataType.FLOAT)
        value.shape = ir.Shape(entry.shape)
    out.insert_at_end(graph)
    graph.outputs[:] = outputs


def _sigmoid(out: GraphBuilder, logit: ir.Value) -> ir.Value:
    """The sigmoid of (batch, 1), as the second softmax of 0 and the logit.

    ONNX Runtime's Sigmoid is off by 1.5e-7 on x86, so that small probabilities become 0 and large ones exceed 1.
    """
    pads = out.constant(f"{PROBABILITIES}/pads", np.array([0, 1, 0, 0]))
    both = out.op(
        "Softmax", [out.op("Pad", [logit, pads], f"{PROBABILITIES}/logits")], f"{PROBABILITIES}/both", axis=-1
    )
    second = out.constant(f"{PROBABILITIES}/second", np.array([1]))
    return out.op("Gather", [both, second], PROBABILITIES, axis=1)


def _constant_in(out: GraphBuilder, name: str, array: np.ndarray) -> ir.Value:
    return out.constant(f"{INPUT}/{name}", array.astype(np.float32))
