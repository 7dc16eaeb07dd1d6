"""Ways to change a bundle that mean harm, or could: what a stranger would send."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from helpers.formats import change_manifest, manifest_of, replace_file
from s2mlp_deploy.system.hashing import sha256

Change: TypeAlias = Callable[[Path], object]
"""Changes the bundle in a directory."""


def main_of(bundle: Path) -> str:
    return str(manifest_of(bundle)["artifact"])


# The directory


def _moved(path: Path) -> Path:
    return next(p / "elsewhere" for p in path.parents if (p / "elsewhere").exists())


def _instead(make: Callable[[Path], object]) -> Callable[[Path, str], None]:
    def change(bundle: Path, name: str) -> None:
        (bundle / name).rename(bundle.parent / "elsewhere")
        make(bundle / name)

    return change


def _socket(path: Path) -> None:
    place = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(place)


NO_FILES: dict[str, Callable[[Path, str], None]] = {
    "a pipe": _instead(lambda path: os.mkfifo(path)),
    "a socket": _instead(_socket),
    "a device that never ends": _instead(lambda path: os.mknod(path, 0o20666, os.makedev(1, 5))),
    "a link to the same content": _instead(lambda path: path.symlink_to(_moved(path))),
    "a link to a device": _instead(lambda path: path.symlink_to("/dev/zero")),
    "a link to itself": _instead(lambda path: path.symlink_to(path)),
    "a directory": _instead(lambda path: path.mkdir()),
    "nothing": _instead(lambda path: None),
}
"""What may stand in the place of a file."""


# The manifest


NO_NAMES = (
    "../bait",
    "/etc/passwd",
    "..\\bait",
    "C:\\bait",
    "\\\\server\\share",
    "model.onnx\0.png",
    "\0",
    "model\u202exnno.",
    "model\u2024onnx",
    "ｍodel.onnx",
    "mode\u0300l",
    "model.onnx ",
    " ",
    "model.onnx/",
    "./model.onnx",
    "1/../../bait",
    "1/./x",
    "~/x",
    "%2e%2e/bait",
    "file:///etc/passwd",
    "nul",
    "CON.onnx",
    "1/aux.txt",
    "com1",
    "model.onnx.",
    "model.onnx::$DATA",
    "a" * 101,
    "1/" + "a" * 101,
    "a" * 5_000_000,
    "2147483648123/x",
)
"""Names of files that none in a bundle has."""


def named(place: str, name: str) -> Change:
    """Let the manifest name a file so, in ``place``."""

    def change(manifest: dict[str, Any]) -> None:
        if place == "files":
            manifest["files"][name] = "0" * 64
        elif place == "golden_images":
            manifest["golden_images"] = [{"file": name, "label": None}]
        else:
            manifest[place] = [name] if place == "graph" else name

    return lambda bundle: change_manifest(bundle, change)


def _text(change: Callable[[str], str]) -> Change:
    def apply(bundle: Path) -> None:
        path = bundle / "manifest.json"
        before = path.read_text("utf-8")
        after = change(json.dumps(json.loads(before), indent=1, ensure_ascii=False))
        assert after != before
        path.write_text(after, "utf-8")

    return apply


def _number(text: str, key: str) -> Change:
    return _text(
        lambda m: re.sub(rf'("{key}": )(?:-?[0-9.e+-]+|\[[^\]]*\])', lambda found: found[1] + text, m, count=1)
    )


def _twice(key: str) -> Change:
    return _text(lambda m: re.sub(rf'("{key}": )', r"\g<1>0, \g<1>", m, count=1))


def _appended(text: str) -> Change:
    return lambda bundle: (bundle / "manifest.json").write_text(
        (bundle / "manifest.json").read_text("utf-8") + text, "utf-8"
    )


MANIFESTS: dict[str, Change] = {
    **{
        f"{key} {text[:12]}": _number(text, key)
        for key in (
            "norm_epsilon",
            "relative_l2",
            "classes",
            "opset",
            "scale",
            "mean",
            "crop_fraction",
            "kernel",
            "depth",
        )
        for text in ("1e400", "-1e400", "NaN", "Infinity", "9" * 400, "1" + "0" * 5000, "1e", "0x10", "[[[]]]")
        if not (key == "opset" and text == "9" * 400)
    },
    **{
        f"{key} twice": _twice(key)
        for key in ("schema_version", "files", "stages", "kernel", "sha256", "dtype", "relative_l2", "torch")
    },
    "lists within lists": _text(lambda m: m.replace('"labels": ', '"labels": ' + "[" * 100_000, 1)),
    "objects within objects": _text(lambda m: m.replace('"engine": ', '"engine": ' + '{"a":' * 50_000, 1)),
    "UTF-16": lambda bundle: (bundle / "manifest.json").write_bytes(
        (bundle / "manifest.json").read_text().replace('"schema', '"x', 1).encode("utf-16")
    ),
    "half a character": _text(lambda m: m.replace('"tool_version": "', '"tool_version": "\\ud800', 1) + "}"),
    "the model is not listed": lambda bundle: change_manifest(bundle, lambda m: m["files"].pop(m["artifact"])),
    "golden tensors are not listed": lambda bundle: change_manifest(
        bundle, lambda m: m["files"].pop("golden.safetensors")
    ),
    "golden tensors are not listed, and it claims to be for benchmarks": lambda bundle: change_manifest(
        bundle, lambda m: (m["files"].pop("golden.safetensors"), m.update(verdict="for benchmarks only"))
    ),
    "golden images are not listed": lambda bundle: change_manifest(bundle, lambda m: m["files"].pop("image-00.png")),
    "the graph is not listed": lambda bundle: change_manifest(bundle, lambda m: m.update(graph=["graph.onnx"])),
}
"""Changed manifests, which are all that is read of the bundle."""

LARGE_MANIFESTS: dict[str, Change] = {
    "100 MB of spaces": _appended(" " * 100_000_000),
    "100 MB of labels": lambda bundle: change_manifest(bundle, lambda m: m.update(labels=["x" * 97] * 1_000_000)),
    "a million files": lambda bundle: change_manifest(
        bundle, lambda m: m["files"].update({f"a{i:x}": "" for i in range(1_000_000)})
    ),
    "a million files that are refused": lambda bundle: change_manifest(
        bundle, lambda m: m["files"].update({f"../{i:x}": "" for i in range(1_000_000)})
    ),
    "a million golden images": lambda bundle: change_manifest(
        bundle, lambda m: m.update(golden_images=[{"file": "a"}] * 900_000)
    ),
    "a million unknown keys": lambda bundle: change_manifest(
        bundle, lambda m: m.update({f"a{i:x}": 0 for i in range(1_000_000)})
    ),
    "a million settings": lambda bundle: change_manifest(
        bundle, lambda m: m.update(engine={f"a{i:x}": None for i in range(900_000)})
    ),
}
"""Manifests of a size that none has."""


# ONNX files whose hash is right


def _edited(change: Callable[[onnx.ModelProto, Path], object]) -> Change:
    def apply(bundle: Path) -> None:
        name = next(name for name in manifest_of(bundle)["files"] if name.endswith(".onnx"))
        model = onnx.load(bundle / name, load_external_data=False)
        change(model, bundle)
        replace_file(bundle, name, model.SerializeToString())

    return apply


def _longer(model: onnx.ModelProto, bundle: Path) -> None:
    next(tensor for tensor in model.graph.initializer if tensor.raw_data).raw_data += bytes(4)


def _outside(location: str, offset: int | str | None = None, length: int | str | None = None) -> Change:
    """The largest weights are to be read from ``location``."""

    def change(model: onnx.ModelProto, bundle: Path) -> None:
        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            if value is not None:
                tensor.external_data.add(key=key, value=str(value))

    return _edited(change)


def _beside(offset: int | str | None, length: int | str | None, listed: bool = True) -> Change:
    """The same, from a file beside the model, called as such a file is: of 100 bytes, or as large as the model where it is not listed."""

    def change(bundle: Path) -> None:
        name = next(name for name in manifest_of(bundle)["files"] if name.endswith(".onnx"))
        (bundle / f"{name}.data").write_bytes(bytes(100 if listed else (bundle / name).stat().st_size))
        _outside(f"{Path(name).name}.data", offset, length)(bundle)
        if listed:
            change_manifest(bundle, lambda m: m["files"].update({f"{name}.data": sha256(bundle / f"{name}.data")}))

    return change


def _linked(bundle: Path) -> None:
    name = next(name for name in manifest_of(bundle)["files"] if name.endswith(".onnx"))
    (bundle / f"{name}.data").symlink_to(bundle.parent / "bait")
    _outside(f"{Path(name).name}.data")(bundle)


def _node(op: str, domain: str = "", **attributes: Any) -> Change:
    """One more operator, before all others."""

    def change(model: onnx.ModelProto, bundle: Path) -> None:
        if domain:
            model.opset_import.add(domain=domain, version=1)
        model.graph.node.insert(0, helper.make_node(op, ["input"], ["more"], domain=domain, **attributes))

    return _edited(change)


def _body() -> onnx.GraphProto:
    value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])
    constant = helper.make_node("Constant", [], ["inner"], value=numpy_helper.from_array(np.ones(1, np.float32)))
    return helper.make_graph([constant], "body", [], [value])


def _function(model: onnx.ModelProto, bundle: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], nodes, [helper.make_opsetid("", 20)]))
    model.graph.node.insert(0, helper.make_node("F", ["input"], ["more"], domain="own"))
    model.opset_import.add(domain="own", version=1)


def _overriding(model: onnx.ModelProto, bundle: Path) -> None:
    """A function that takes the place of an operator of ONNX's own."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("", "Gelu", ["x"], ["y"], nodes, [helper.make_opsetid("", 20)]))


def _shape(*dims: int) -> Change:
    def change(model: onnx.ModelProto, bundle: Path) -> None:
        model.graph.initializer[0].dims[:] = dims

    return _edited(change)


def _claims(model: onnx.ModelProto, bundle: Path) -> None:
    model.graph.initializer.append(
        TensorProto(name="more", data_type=TensorProto.FLOAT, dims=[50_000, 50_000], float_data=[0])
    )


def _nested(model: onnx.ModelProto, bundle: Path) -> None:
    graph = onnx.GraphProto(name="innermost")
    for _ in range(30):
        node = onnx.NodeProto(op_type="If")
        node.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g.CopyFrom(graph)
        graph = onnx.GraphProto(name="outer", node=[node])
    model.graph.node.append(graph.node[0])


def _contents(content: Callable[[bytes], bytes]) -> Change:
    def change(bundle: Path) -> None:
        name = next(name for name in manifest_of(bundle)["files"] if name.endswith(".onnx"))
        replace_file(bundle, name, content((bundle / name).read_bytes()))

    return change


def _sparse(model: onnx.ModelProto, bundle: Path) -> None:
    values, indices = (
        numpy_helper.from_array(np.ones(1, np.float32), "s"),
        numpy_helper.from_array(np.zeros(1, np.int64)),
    )
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**40]))


GRAPHS: dict[str, Change] = {
    "weights from ../": _outside("../bait"),
    "weights from ../ within the name": _outside("model.onnx.data/../../bait"),
    "weights from /etc/passwd": _outside("/etc/passwd"),
    "weights from a URL": _outside("file:///etc/passwd"),
    "weights from no file": _outside(""),
    "weights from the model itself": _outside("model.onnx"),
    "weights from the golden tensors": _outside("golden.safetensors"),
    "weights from the manifest": _outside("manifest.json"),
    "weights from a link": _linked,
    "weights from a file that is not listed": _beside(None, None, listed=False),
    "weights beyond the end": _beside(0, None),
    "weights of another length": _beside(0, 4),
    "weights before the beginning": _beside(-8, None),
    "weights from far away": _beside(2**62, None),
    "weights from no number": _beside("0x0", "10"),
    "an operator of a library": _node("Own", "com.example"),
    "an operator in Python": _node("PyOp", "ai.onnx.contrib"),
    "an operator of ONNX's that learns": _node("LinearClassifier", "ai.onnx.ml", coefficients=[1.0]),
    "an operator that opens a file": _node("EPContext", "com.microsoft", ep_cache_context="/etc/passwd", embed_mode=0),
    "a branch": _node("If", then_branch=_body(), else_branch=_body()),
    "a loop": _node("Loop", body=_body()),
    "a scan": _node("Scan", body=_body(), num_scan_inputs=1),
    "a branch within 30 others": _edited(_nested),
    "a function": _edited(_function),
    "a function in the place of an operator": _edited(_overriding),
    "a graph for training": _edited(lambda model, bundle: model.training_info.add().algorithm.CopyFrom(_body())),
    "sparse weights": _edited(_sparse),
    "a giant shape": _shape(2**40, 2**20),
    "a shape that overflows": _shape(2**33, 2**33),
    "a negative shape": _shape(-1, 5),
    "weights that are only claimed": _edited(_claims),
    "a value more than the shape takes": _edited(_longer),
    "weights of text": _edited(
        lambda model, bundle: model.graph.initializer.append(
            TensorProto(name="more", data_type=TensorProto.STRING, dims=[1], string_data=[b"x"])
        )
    ),
    "weights in an attribute": _node(
        "Constant", value=TensorProto(name="x", data_type=1, dims=[10**6, 10**6], raw_data=b"1234")
    ),
    "text": _contents(lambda content: b"not a model"),
    "nothing": _contents(lambda content: b""),
    "half a model": _contents(lambda content: content[: len(content) // 2]),
    "a deep message": _contents(lambda content: b"\x3a\x80\x01" * 100_000),
}
"""ONNX files that could do more than compute, or are none."""


# OpenVINO's files whose hashes are right


def _xml(pattern: str, replacement: str) -> Change:
    def change(bundle: Path) -> None:
        before = (bundle / "model.xml").read_text("utf-8")
        after = re.sub(pattern, replacement, before, count=1)
        assert after != before
        replace_file(bundle, "model.xml", after.encode())

    return change


_ENTITY = '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY {} "file:///etc/passwd">]><net '

IRS: dict[str, Change] = {
    "an external entity": _xml(r"<\?xml[^>]*>\s*<net ", _ENTITY.format("x SYSTEM")),
    "an external document type": _xml(r"<net ", '<!DOCTYPE net SYSTEM "file:///etc/passwd"><net '),
    "entities by the billion": _xml(
        r"<net ",
        "<!DOCTYPE net [<!ENTITY a 'aaaaaaaaaa'>"
        + "".join(f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + "]><net ",
    ),
    "an operator of a library": _xml(r'type="Add" version="opset1"', 'type="Add" version="extension"'),
    "an operator of no set": _xml(r' version="opset1"', ""),
    "a loop": _xml(r'type="Add"', 'type="Loop"'),
    "a branch": _xml(r'type="Add"', 'type="If"'),
    "state": _xml(r'type="Add" version="opset1"', 'type="ReadValue" version="opset6"'),
    "weights beyond the end": _xml(r'offset="\d+" size="(\d+)"', r'offset="99999999" size="\1"'),
    "weights before the beginning": _xml(r'offset="\d+"', 'offset="-8"'),
    "weights that overflow": _xml(r'offset="\d+"', f'offset="{2**64 - 4}"'),
    "a giant shape": _xml(r'shape="[0-9, ]+" offset', 'shape="1000000, 1000000" offset'),
    "weights of text": _xml(
        r'element_type="f32" shape="([0-9, ]+)" offset', r'element_type="string" shape="\1" offset'
    ),
    "elements within elements": _xml(r"</net>", "<a>" * 100_000 + "</a>" * 100_000 + "</net>"),
    "half of it": lambda bundle: replace_file(bundle, "model.xml", (bundle / "model.xml").read_bytes()[:999]),
    "weights that are not listed": lambda bundle: change_manifest(bundle, lambda m: m["files"].pop("model.bin")),
    "fewer weights": lambda bundle: replace_file(bundle, "model.bin", (bundle / "model.bin").read_bytes()[:-1]),
}
"""Files for OpenVINO that could do more than compute, or are none."""


# Settings and other files, with hashes that are right


def _settings(**changed: Any) -> Change:
    return lambda bundle: change_manifest(bundle, lambda m: m["engine"].update(changed))


def _unlisted(name: str) -> Change:
    """A file is not listed, and a pipe stands in its place."""

    def change(bundle: Path) -> None:
        change_manifest(bundle, lambda m: m["files"].pop(name))
        (bundle / name).unlink()
        os.mkfifo(bundle / name)

    return change


def _renamed(name: str) -> Change:
    """The artifact is called as another format's."""

    def change(bundle: Path) -> None:
        old = main_of(bundle)
        (bundle / old).rename(bundle / name)
        change_manifest(bundle, lambda m: (m.update(artifact=name), m["files"].update({name: m["files"].pop(old)})))

    return change


def _ort_with_a_branch(bundle: Path) -> None:
    import onnxruntime

    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("If", ["which"], ["logits"], then_branch=_body(), else_branch=_body())],
            "g",
            [helper.make_tensor_value_info("which", TensorProto.BOOL, [1])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1])],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(bundle.parent / "branch.ort")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    replace_file(bundle, "model.ort", (bundle.parent / "branch.ort").read_bytes())
    (bundle.parent / "branch.ort").unlink()


def _options(*entries: str) -> Change:
    return _settings(session_options=list(entries))


def _tflite(change: Callable[[Any], object]) -> Change:
    """The model of a bundle for LiteRT, changed as an object of its schema."""

    def of_bundle(bundle: Path) -> None:
        from s2mlp_exporters.litert.model_writer import pack
        from s2mlp_exporters.litert.schema import load_schema

        schema = load_schema()
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((bundle / "model.tflite").read_bytes()))
        change(model)
        replace_file(bundle, "model.tflite", bytes(pack(model)))

    return of_bundle


def _mlmodel(change: Callable[[Any], object]) -> Change:
    """The program of a Core ML package, changed as a message."""

    def of_bundle(bundle: Path) -> None:
        from s2mlp_exporters.coreml.package import PROGRAM
        from s2mlp_exporters.coreml.toolkit import load

        spec = load("coremltools.proto.Model_pb2").Model()
        spec.ParseFromString((bundle / PROGRAM).read_bytes())
        change(spec)
        replace_file(bundle, PROGRAM, spec.SerializeToString(deterministic=True))

    return of_bundle


def _operators(spec: Any) -> Any:
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return block.operations


def _weights_elsewhere(spec: Any) -> None:
    values = [item.attributes["val"] for item in _operators(spec) if item.type == "const"]
    next(value for value in values if value.HasField("blobFileValue")).blobFileValue.fileName = "@model_path/../../bait"


_PACKAGE = "model.mlpackage/Data/com.apple.CoreML"


def _bytes_of(name: str, old: bytes, new: bytes) -> Change:
    """Other bytes, as many, in the file ``name``."""

    def change(bundle: Path) -> None:
        before = (bundle / name).read_bytes()
        assert old in before and len(old) == len(new)
        replace_file(bundle, name, before.replace(old, new, 1))

    return change


SETTINGS: dict[str, dict[str, Change]] = {
    "onnx": {
        "called .ort": _renamed("model.ort"),
        "called as text": _renamed("model.onnxtxt"),
        "called .json": _renamed("model.json"),
    },
    "ort": {
        "called .onnx": _renamed("model.onnx"),
        "a branch": _ort_with_a_branch,
        "text": lambda bundle: replace_file(bundle, "model.ort", b"not a model"),
        "places that lead nowhere": lambda bundle: replace_file(
            bundle, "model.ort", b"\xff" * 4 + b"ORTM" + b"\xff" * 100
        ),
        "half a model": lambda bundle: replace_file(bundle, "model.ort", (bundle / "model.ort").read_bytes()[:5000]),
        "the style of an ONNX file": _settings(style="onnx"),
        "statistics into a file": _options("session.collect_node_memory_stats_to_file=written"),
        "weights from a folder": _options("session.model_external_initializers_file_folder_path=/etc"),
        "a context into a file": _options("ep.context_enable=1", "ep.context_file_path=written"),
        "another provider": _settings(provider="/tmp/provider.so"),
    },
    "openvino": IRS
    | {
        "another device": _settings(device="HETERO:CPU"),
        "a plugin": _settings(plugin="/tmp/plugin.so"),
    },
    "litert": {
        "another runtime": _settings(runtime="tflite"),
        "delegates": _settings(delegate="/tmp/delegate.so"),
        "places that lead nowhere": lambda bundle: replace_file(
            bundle, "model.tflite", b"\xff" * 4 + b"TFL3" + b"\xff" * 100
        ),
        "half a model": lambda bundle: replace_file(
            bundle, "model.tflite", (bundle / "model.tflite").read_bytes()[:5000]
        ),
        "an operator of a library": _tflite(
            lambda model: setattr(model.operatorCodes[0], "customCode", "FlexReadFile")
        ),
        "a branch": _tflite(lambda model: setattr(model.operatorCodes[0], "builtinCode", 118)),
        "weights from elsewhere": _tflite(lambda model: setattr(model.buffers[3], "offset", 1 << 40)),
    },
    "executorch": {
        "another runtime": _settings(runtime="torch"),
        "another backend": _settings(backend="qnn"),
        "a batch of a million": _settings(max_batch=10**6),
        "places that lead nowhere": lambda bundle: replace_file(
            bundle, "model.pte", b"\xff" * 4 + b"ET12eh00" + b"\xff" * 100
        ),
        "half a program": lambda bundle: replace_file(bundle, "model.pte", (bundle / "model.pte").read_bytes()[:5000]),
        "a part for another backend": _bytes_of("model.pte", b"XnnpackBackend", b"OpenvinoBacken"),
        "an operator of a library": _bytes_of("model.pte", b"index_select", b"own::op_____"),
        "another method": _bytes_of("model.pte", b"forward\0", b"farword\0"),
    },
    "coreml": {
        "another runtime": _settings(runtime="mlx"),
        "other processors": _settings(compute_units="gpu"),
        "half a program": lambda bundle: replace_file(
            bundle, f"{_PACKAGE}/model.mlmodel", (bundle / f"{_PACKAGE}/model.mlmodel").read_bytes()[:5000]
        ),
        "a custom layer": _mlmodel(lambda spec: setattr(_operators(spec)[-1], "type", "custom_layer")),
        "a loop": _mlmodel(lambda spec: _operators(spec)[-1].blocks.add()),
        "another function": _mlmodel(lambda spec: spec.mlProgram.functions["other"].SetInParent()),
        "weights from elsewhere": _mlmodel(_weights_elsewhere),
        "fewer weights": lambda bundle: replace_file(
            bundle, f"{_PACKAGE}/weights/weight.bin", (bundle / f"{_PACKAGE}/weights/weight.bin").read_bytes()[:-100]
        ),
        "a file that is not listed": lambda bundle: (bundle / _PACKAGE / "more.json").write_text("{}"),
    },
    "web": {
        "a script that is not listed": _unlisted("app.js"),
        "a page that is not listed": _unlisted("index.html"),
        "a runtime that is not listed": _unlisted("ort-wasm-simd-threaded.wasm"),
        "pages elsewhere": _settings(page=["../bait"]),
    },
    "triton": {
        "a configuration that is not listed": _unlisted("config.pbtxt"),
        "another configuration": lambda bundle: replace_file(
            bundle, "config.pbtxt", b'backend: "python"\n' + (bundle / "config.pbtxt").read_bytes()
        ),
        "parameters": lambda bundle: replace_file(
            bundle,
            "config.pbtxt",
            (bundle / "config.pbtxt").read_bytes() + b'parameters { key: "EXECUTION_ENV_PATH" }\n',
        ),
        "bytes": lambda bundle: replace_file(bundle, "config.pbtxt", b"\xff\xfe\0"),
        "another backend": _settings(backend="python"),
        "many instances": _settings(instances=10**9),
    },
    "trt-rtx": {
        "a graph that is not listed": lambda bundle: change_manifest(bundle, lambda m: m["files"].pop("model.onnx"))
    },
}
"""By format: settings and files of its own that mean harm, beside :data:`GRAPHS` for those that have an ONNX file."""
