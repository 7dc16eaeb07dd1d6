"""No fault gets through the gate.

Each fault of a catalogue is put, alone, into an export that is healthy otherwise: into the float32 graph, into the
parameters of int8 and the rounding to float16, into what takes images and gives answers, into what a compiler makes of the
graph, into the runtime that answers, into what the manifest says, and into the files of a finished bundle, with its hashes
made right. Not one may pass. The tables name the check that caught each: *float32 graph* is the graph that every precision
starts from, *artifact* and *engine* what is published, *verify* what s2mlp-verify checks on a device.

What no check can tell: classes that are named in another order, or images normalized otherwise, than in training, where
the checkpoint itself says so (labelled images with --data show it as low accuracy, and below guessing it is refused); a
lower-precision engine that errs by less than its precision rounds, as fp16 does with a GELU approximated by tanh, or that
was compiled from a more precise graph, which is only more exact; a result that is wrong only for thread counts, image
sizes or batches that nothing is asked with, or once in many runs; a bundle whose model, golden tensors and manifest were all
made anew to fit each other. int8 weights are clipped at -127, never -128: with their zero point at 0 no weight needs the last
step, so there is no fault to tell.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import PassResult
from PIL import Image

from helpers import faults as graph_faults
from helpers import npm
from helpers.reliability.faulty_bundles import (
    IN_FILE,
    RECORDED,
    exchanged_images,
    flipped,
    golden_change,
    golden_of,
    in_graph_file,
    one_level,
    read_main,
    redrawn,
)
from helpers.reliability.faulty_graphs import (
    FITS,
    HEADS,
    IN_FLOAT16,
    IN_INT8,
    OTHER,
    TAILS,
    TOPS,
    WS,
    ZERO,
    W,
    X,
    half_changed,
    without_layer_norm,
)
from helpers.reliability.faulty_runtimes import SESSIONS, StandIn, at_last, from_sample, where_size
from helpers.reliability.injections import (
    Answers,
    Catalogue,
    Erring,
    Steps,
    copied_from,
    in_all_weights,
    in_nodes,
    in_tensor,
    tampered,
)
from helpers.reliability.random_checkpoints import Case, Written, write
from helpers.reliability.record import Trials
from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES, save_checkpoint, small_spec
from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.data import images
from s2mlp_deploy.formats import base as formats_base
from s2mlp_deploy.formats import registry
from s2mlp_deploy.passes import attach_io
from s2mlp_deploy.passes.float16 import ToFloat16
from s2mlp_deploy.passes.float16_storage import StoreFloat16
from s2mlp_deploy.passes.quantize import Quantize
from s2mlp_deploy.pipeline import bundle_record, checkpoint_context, export_onnx
from s2mlp_deploy.pipeline import deploy as deploying
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.request import (
    EvidenceOptions,
    ExportRequest,
    FormatOptions,
    GraphOptions,
    OutputOptions,
    Source,
)
from s2mlp_deploy.pipeline.verify import verify
from s2mlp_deploy.quantization.settings import OPTIONS, Float16, Int8, PrecisionOptions
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, Interface, Manifest
from s2mlp_deploy.system.progress import Progress

TARGETS = ("x86", "arm", "trt", "litert")
FORMATS = npm.formats(("onnx", "ort", "openvino", "web", "triton"))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch, made: Written) -> None:
    find = registry.find
    monkeypatch.setattr(StandIn, "torch", made.checkpoint, raising=False)
    monkeypatch.setattr(registry, "find", lambda name: StandIn() if name == "trt-rtx" else find(name))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def made(place: Path) -> Written:
    """A small checkpoint that tells kinds of images apart, and what calibrates it."""
    return write(Case(1000, small_spec(channels=16), "float32", "gather"), place)


@pytest.fixture(scope="module")
def pictures(place: Path) -> Path:
    """Images in files, of which some are not of the model's size."""
    (place / "pictures").mkdir()
    for i, size in enumerate([(28, 20), (40, 33), (61, 47)]):
        pixels = np.random.default_rng(i).integers(0, 256, (7, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(place / "pictures" / f"{i}.png")
    return place / "pictures"


def request(
    made: Written,
    output: Path,
    precision: str = "fp32",
    target: str | None = None,
    *,
    format: str = "onnx",
    interface: Interface = FLOAT_LOGITS,
    labels: Path | None = None,
    golden_images: Path | None = None,
    batch: int | None = None,
    dynamic_size: bool = False,
) -> ExportRequest:
    return ExportRequest(
        Source(made.checkpoint, labels=labels),
        graph=GraphOptions(dynamic_size=dynamic_size, batch=batch, interface=interface),
        precision=options(precision, target, made.calibration),
        format=FormatOptions(format),
        evidence=EvidenceOptions(golden_images=golden_images),
        output=OutputOptions(output, force=True),
    )


def options(precision: str, target: str | None, calibration: Path | None = None) -> PrecisionOptions:
    if precision == "int8":
        return Int8(calibration, target=target or "x86")
    return Float16(target=target) if precision == "fp16" else OPTIONS[precision]()


@pytest.fixture(scope="module")
def bundles(made: Written, pictures: Path, place: Path) -> Callable[..., Path]:
    """ONNX bundles by precision and format, made when first asked for; healthy, so each passes."""
    known: dict[str, Path] = {}

    def bundle(format: str = "onnx", precision: str = "fp32", target: str | None = None, **more: Any) -> Path:
        target = (target or "trt") if precision in ("int8", "fp16") else None
        key = "-".join([format, precision, target or "", *(f"{n}{v}" for n, v in more.items())]).replace("/", "_")
        if key not in known:
            if precision == "bf16":
                deploy(request(made, place / key, precision, format=format))
            elif format == "onnx":
                deploy(request(made, place / key, precision, target, **more))
            else:
                source = bundle("onnx", precision, target, **more)
                deploy(
                    ExportRequest(
                        Source(source),
                        precision=OPTIONS[precision](),
                        format=FormatOptions(format),
                        output=OutputOptions(place / key),
                    )
                )
            assert not verify(place / key).verdict.failures
            known[key] = place / key
        return known[key]

    return bundle


def some(trials: Trials, faults: list[Any], few: int) -> Iterator[Any]:
    """All ``faults``, or a few of them from all over."""
    count = trials.times(few, len(faults))
    yield from (faults[i * len(faults) // count] for i in range(min(count, len(faults))))


HIDDEN_BY_ROUNDING = (
    "weights of another epoch",
    "GELU approximated by tanh",
    "epsilon 1e-6",
    "epsilon 1e-4",
    "weights rounded to float16",
    "one sign flipped",
    "weights rounded to TF32",
    "unbiased variance",
)


def test_faults_in_the_graph(trials: Trials, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The graph of the bundled checkpoint computes something slightly else; at fp16 and int8, the smallest of these faults."""
    lower = export_onnx.lower_checkpoint
    first = ExportRequest(Source(PAPER_CHECKPOINT), output=OutputOptions(tmp_path / "out"))
    known = checkpoint_context.read_checkpoint(first, Progress(Steps()))
    onnx_file = registry.find("onnx")
    assert isinstance(onnx_file, formats_base.Exporter)
    found = Catalogue()
    fine = [("fp16", "x86"), ("fp16", "trt"), *(("int8", target) for target in TARGETS)]
    tried = [(fault, ("fp32", None)) for fault in graph_faults.FAULTS] + list(product(HIDDEN_BY_ROUNDING, fine))
    for fault, (kind, target) in some(trials, tried, 4):

        def faulty(prepared: Any, lowering: Any, axes: Any, fault: str = fault) -> Any:
            weights = {name: tensor.numpy() for name, tensor in prepared.source.weights.items()}
            return replace(
                lower(prepared, lowering, axes), model=graph_faults.FAULTS[fault](prepared.source.spec, weights)
            )

        monkeypatch.setattr(export_onnx, "lower_checkpoint", faulty)
        wanted = replace(first, precision=options(kind, target, TEST_IMAGES))
        where = "" if kind == "fp32" else f" [{kind} {target or ''}".rstrip() + "]"
        found.try_export(
            fault + where,
            lambda steps, wanted=wanted: export_onnx.export(wanted, onnx_file, Progress(steps), known),  # type: ignore[misc]
        )
    found.tell(trials)


def test_faults_in_the_parameters_of_int8(
    trials: Trials, made: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Scales, zero points and bytes of one layer are wrong in the int8 graph, or two layers' ranges are exchanged, for each
    target.
    """
    call, found = Quantize.call, Catalogue()
    of_bias = {name for name in IN_INT8 if name.startswith("bias")}
    tried = [
        (name, target)
        for name, target in product([*IN_INT8, "ranges of two layers exchanged"], TARGETS)
        if not (target == "trt" and name in of_bias)
    ]
    for fault, target in some(trials, tried, 4):

        def faulty(self: Quantize, model: ir.Model, fault: str = fault) -> PassResult:
            if fault not in IN_INT8:
                a, b = "stage0/block01/norm1", "stage0/block01/gelu1"
                exchanged = {**self.ranges, a: self.ranges[b], b: self.ranges[a]}
                return call(Quantize(exchanged, self.recipe, self.layers), model)
            result = call(self, model)
            if {X, f"{OTHER}/x_scale"} <= result.model.graph.initializers.keys():
                IN_INT8[fault](result.model)
            return result

        monkeypatch.setattr(Quantize, "call", faulty)
        found.try_export(
            f"{fault} [{target}]",
            lambda steps, target=target: deploy(request(made, tmp_path / "out", "int8", target), steps),  # type: ignore[misc]
        )
    found.tell(trials)


def test_faults_of_float16(trials: Trials, made: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rounding to float16 loses more than it should, or breaks the graph; values overflow; a LayerNorm is computed in float16,
    on a model with large values.
    """
    found = Catalogue()
    passes = {"x86": StoreFloat16, "trt": ToFloat16}
    for fault, target in some(trials, list(product(IN_FLOAT16, passes)), 5):
        with monkeypatch.context() as patch:
            patch.setattr(passes[target], "call", half_changed(passes[target], IN_FLOAT16[fault]))
            wanted = request(made, tmp_path / "out", "fp16", target)
            found.try_export(f"{fault} [{target}]", lambda steps, wanted=wanted: deploy(wanted, steps))  # type: ignore[misc]
    import torch

    for fault, factor in (("LayerNorm in float16", 400.0), ("a layer beyond float16's range", 1e6)):
        content = torch.load(made.checkpoint)
        content["model"]["stages.0.embedding.weight"] *= factor
        torch.save(content, tmp_path / "large.pt")
        large = ExportRequest(
            Source(tmp_path / "large.pt"),
            precision=Float16(target="trt"),
            output=OutputOptions(tmp_path / "out", force=True),
        )
        with monkeypatch.context() as patch:
            if factor < 1000:
                deploy(large)  # which is healthy
                patch.setattr(ToFloat16, "call", half_changed(ToFloat16, without_layer_norm))
            found.try_export(fault, lambda steps, large=large: deploy(large, steps))  # type: ignore[misc]
    found.tell(trials)


def test_faults_of_heads_and_tails(
    trials: Trials, made: Written, pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The part that takes bytes or images, or the part that gives probabilities or the best classes, is wrong, at each precision."""
    attach, found = attach_io.attach, Catalogue()
    groups = [
        (HEADS, Interface(input="uint8")),
        (FITS, Interface(input="image")),
        (TAILS, Interface(output="probabilities")),
        (TOPS, Interface(output="top5")),
    ]
    tried = [
        (name, wrap, kind, precision)
        for precision in ("fp32", "fp16", "int8")
        for faults, kind in groups
        for name, wrap in faults.items()
    ]
    for fault, wrap, kind, at in some(trials, tried, 4):
        monkeypatch.setattr(attach_io, "attach", wrap(attach))
        wanted = request(made, tmp_path / "out", at, interface=kind, golden_images=pictures)
        what = kind.output if kind.input == "float" else kind.input
        found.try_export(f"{fault} [{what} {at}]", lambda steps, wanted=wanted: deploy(wanted, steps))  # type: ignore[misc]
    found.tell(trials)


@pytest.fixture(scope="module")
def others(made: Written, place: Path) -> Mapping[str, Path]:
    """Bundles of other models with the same shapes."""
    spec = small_spec(channels=16)
    known = {}
    for name, path, semantics in (
        ("another checkpoint", save_checkpoint(place / "other.pt", spec, seed=9), "paper"),
        ("in-place semantics", made.checkpoint, "inplace"),
    ):
        for kind in ("fp32", "fp16"):
            known[f"{name} {kind}"] = place / f"{name}-{kind}"
            deploy(
                ExportRequest(
                    Source(path, semantics=semantics),
                    precision=OPTIONS[kind](),
                    output=OutputOptions(known[f"{name} {kind}"]),
                )
            )  # type: ignore[arg-type]
    return known


def compiler_faults(
    bundles: Callable[..., Path], others: Mapping[str, Path]
) -> Iterator[tuple[str, str, Callable[[Path], None]]]:
    """Faults of compilers, (name, precision of the bundle, change of the graph file that it reads)."""
    for at in ("fp32", "fp16"):
        yield from ((name, at, in_graph_file(name)) for name in IN_FILE)
        yield from (
            (name, at, copied_from(others[f"{name} {at}"] / "model.onnx"))
            for name in ("another checkpoint", "in-place semantics")
        )
    tanh = in_nodes(
        lambda n: n.attribute.append(onnx.helper.make_attribute("approximate", "tanh")) if n.op_type == "Gelu" else None
    )
    yield "GELU approximated by tanh", "fp32", tanh
    yield "weights truncated to bfloat16", "fp32", in_all_weights(graph_faults.truncate(7))
    yield "weights rounded to float16", "fp32", in_all_weights(lambda w: w.astype(np.float16).astype(np.float32))
    yield (
        "weights truncated to 4 bits",
        "fp16",
        in_all_weights(lambda w: graph_faults.truncate(4)(w.astype(np.float32))),
    )
    for at, other in (("fp32", "fp16"), ("fp32", "int8"), ("fp16", "int8"), ("int8", "fp32"), ("int8", "fp16")):
        yield f"{other} graph", at, copied_from(bundles("onnx", other) / "model.onnx")
    for name, change in {
        "one weight scale of a layer ten times too large": in_tensor(
            WS, lambda s: np.where(np.arange(len(s)) == 3, 10 * s, s)
        ),
        "activation's scale a tenth": in_tensor(X, lambda s: s * np.float32(0.1)),
        "zero point far off": in_tensor(ZERO, lambda z: (z + 40).astype(z.dtype)),
        "weight transposed": in_tensor(W, np.transpose),
        "classes permuted": in_tensor("head.fc.weight", lambda w: np.roll(w, 1, axis=0)),
    }.items():
        yield name, "int8", change


def mistaking(kind: Any, other: Path) -> Callable[..., Artifact]:
    """The compiler of ``kind``, which takes the bundle ``other`` for the one that it is given."""
    compile = kind.compile
    return lambda self, bundle, *rest: compile(self, Bundle(other, bundle.manifest), *rest)  # type: ignore[no-any-return]


@pytest.mark.npm
def test_faults_of_compilers(
    trials: Trials,
    bundles: Callable[..., Path],
    others: Mapping[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A compiler makes an engine of something else than the graph that it was given: in each format, at each precision."""
    found = Catalogue()
    tried = list(product(compiler_faults(bundles, others), (*FORMATS[1:], "trt-rtx")))
    for number, ((fault, at, change), format) in enumerate(some(trials, tried, 4)):
        source, kind = bundles("onnx", at), type(registry.find(format))
        altered = Path(shutil.copytree(source, tmp_path / str(number)))
        change(altered / "model.onnx")
        with monkeypatch.context() as patch:
            patch.setattr(kind, "compile", mistaking(kind, altered))
            wanted = ExportRequest(
                Source(source),
                precision=OPTIONS[at](),
                format=FormatOptions(format),
                output=OutputOptions(tmp_path / "out", force=True),
            )
            found.try_export(f"{fault} [{at} {format}]", lambda steps, wanted=wanted: deploy(wanted, steps))  # type: ignore[misc]
    found.tell(trials)


def test_faults_of_settings_of_runtimes(
    trials: Trials, bundles: Callable[..., Path], made: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """OpenVINO computes in bfloat16 or saves weights as float16; an engine is made of the graph of another precision than asked for."""
    from s2mlp_exporters.openvino import exporter

    found = Catalogue()
    for at in ("fp32", "fp16", "int8"):
        with monkeypatch.context() as patch:
            patch.setattr(exporter, "LOADING", {**exporter.LOADING, "INFERENCE_PRECISION_HINT": "bf16"})
            wanted = ExportRequest(
                Source(bundles("onnx", at)),
                precision=OPTIONS[at](),
                format=FormatOptions("openvino"),
                output=OutputOptions(tmp_path / "out", force=True),
            )
            found.try_export(f"OpenVINO in bfloat16 [{at}]", lambda steps, wanted=wanted: deploy(wanted, steps))  # type: ignore[misc]
    openvino = exporter.load_openvino()
    save = openvino.save_model
    with monkeypatch.context() as patch:
        patch.setattr(openvino, "save_model", lambda model, path, **_: save(model, path, compress_to_fp16=True))
        wanted = ExportRequest(
            Source(bundles("onnx", "fp32")),
            format=FormatOptions("openvino"),
            output=OutputOptions(tmp_path / "out", force=True),
        )
        found.try_export("OpenVINO's weights as float16 [fp32]", lambda steps: deploy(wanted, steps))
    graph = deploying._graph
    for asked, given in (("fp16", "fp32"), ("fp32", "fp16"), ("int8", "fp32")):
        with monkeypatch.context() as patch:
            patch.setattr(
                deploying,
                "_graph",
                lambda request, *rest, given=given: graph(replace(request, precision=OPTIONS[given]()), *rest),
            )
            mixed = request(made, tmp_path / "out", asked, format="ort")
            found.try_export(f"{given} graph for {asked}", lambda steps, mixed=mixed: deploy(mixed, steps))  # type: ignore[misc]
    found.tell(trials)


def erring(bundle: Path, make: Callable[[], Answers], patch: pytest.MonkeyPatch) -> None:
    kind = type(registry.find(read_bundle(bundle).manifest.format))
    open = kind.open
    patch.setattr(kind, "open", lambda self, artifact: Erring(open(self, artifact), make))


@pytest.mark.npm
def test_faults_of_runtimes(trials: Trials, bundles: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that answers something else, at times: in each format, at each precision that it has (bf16: a stand-in)."""
    found = Catalogue()
    kinds = [*product((*FORMATS, "trt-rtx"), ("fp32", "fp16", "int8")), ("trt-rtx", "bf16")]
    for fault, (format, at) in some(trials, list(product(SESSIONS, kinds)), 12):
        with monkeypatch.context() as patch:
            erring(bundle := bundles(format, at), SESSIONS[fault], patch)
            found.try_verify(f"{fault} [{format} {at}]", lambda bundle=bundle: verify(bundle))  # type: ignore[misc]
    found.tell(trials)


def test_faults_of_batches_and_sizes(
    trials: Trials, bundles: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime errs from one place in a large batch on, or for some image sizes alone."""
    found = Catalogue()
    batches = {f"wrong from sample {n} on": from_sample(n - 1) for n in (2, 3, 8, 9, 16)}
    batches["the last sample alone wrong"] = at_last(lambda a: a[-1:].fill(0))
    sizes = {
        "wrong for other sizes": where_size(lambda h, w: (h, w) != (20, 28)),
        "wrong for larger images": where_size(lambda h, w: h * w > 20 * 28),
        "wrong for smaller images": where_size(lambda h, w: h * w < 20 * 28),
        "wrong for tall images": where_size(lambda h, w: h > w),
        "wrong for wide images": where_size(lambda h, w: w > h),
        "wrong for the image size that it was trained with": where_size(lambda h, w: (h, w) == (20, 28)),
    }
    tried = [(fault, answers, {"batch": 16}) for fault, answers in batches.items()]
    tried += [(fault, answers, {"dynamic_size": True}) for fault, answers in sizes.items()]
    for (fault, answers, kind), format in some(trials, list(product(tried, ("onnx", "ort", "openvino"))), 4):
        with monkeypatch.context() as patch:
            erring(bundle := bundles(format, "fp32", **kind), answers, patch)
            found.try_verify(f"{fault} [{format}]", lambda bundle=bundle: verify(bundle))  # type: ignore[misc]
    found.tell(trials)


@pytest.mark.npm
def test_faults_in_what_is_recorded(
    trials: Trials, bundles: Callable[..., Path], pictures: Path, place: Path, tmp_path: Path
) -> None:
    """The manifest of a finished bundle says something else than the artifact is, in each format."""
    (place / "labels.txt").write_text("".join(f"kind {i}\n" for i in range(7)))
    known = {"golden_images": pictures, "labels": place / "labels.txt"}
    found = Catalogue()
    for fault, format in some(trials, list(product(RECORDED, FORMATS)), 6):
        bundle = tampered(bundles(format, "fp32", **known), tmp_path / f"{fault}-{format}", RECORDED[fault])
        found.try_verify(f"{fault} [{format}]", lambda bundle=bundle: verify(bundle))  # type: ignore[misc]
    found.tell(trials)


@pytest.mark.npm
def test_faults_in_files(
    trials: Trials, bundles: Callable[..., Path], others: Mapping[str, Path], pictures: Path, tmp_path: Path
) -> None:
    """Files of a finished bundle are stale, exchanged or edited, with hashes made right; or are damaged, with hashes as they were."""
    found = Catalogue()
    known = {"golden_images": pictures}
    edited: dict[str, Callable[[Path, dict[str, Any]], object]] = {
        "golden tensors of another checkpoint": golden_of(others["another checkpoint fp32"]),
        "golden tensors of another shift": golden_of(others["in-place semantics fp32"]),
        "golden tensors of a fixed batch": golden_change(lambda t: t.update({"input/noise": t["input/noise"][::-1]})),
        "golden logits permuted": golden_change(
            lambda t: t.update({"logits/noise": np.roll(t["logits/noise"], 1, axis=1)})
        ),
        "golden logits NaN": golden_change(lambda t: t["logits/faint"].fill(np.nan)),
        "a golden case lost": golden_change(lambda t: [t.pop("input/images"), t.pop("logits/images")]),
        "golden images normalized otherwise": golden_change(lambda t: t["input/images"].__imul__(1.01)),
        "golden images exchanged": exchanged_images,
        "a golden image mirrored": redrawn(lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        "a golden image in BGR": redrawn(lambda image: Image.fromarray(np.asarray(image)[..., ::-1])),
        "a golden image one level off": redrawn(one_level),
        "a golden image of another size": redrawn(lambda image: image.resize((20, 20))),
        **{name: lambda place, _, name=name: in_graph_file(name)(place / read_main(place)) for name in IN_FILE},  # type: ignore[misc]
        "model of another checkpoint": lambda place, _: shutil.copyfile(
            others["another checkpoint fp32"] / "model.onnx", place / read_main(place)
        ),
    }
    for fault, format in some(trials, list(product(edited, npm.formats(("onnx", "web", "triton")))), 5):
        bundle = tampered(bundles(format, "fp32", **known), tmp_path / f"{fault}-{format}", edited[fault])
        found.try_verify(f"{fault} [{format}]", lambda bundle=bundle: verify(bundle))  # type: ignore[misc]
    damaged: dict[str, Callable[[Path], object]] = {
        "one bit flipped": lambda path: path.write_bytes(flipped(path.read_bytes())),
        "cut off": lambda path: path.write_bytes(path.read_bytes()[:-100]),
        "gone": lambda path: path.unlink(),
    }
    for (fault, damage), format, file in some(
        trials, list(product(damaged.items(), (*FORMATS, "trt-rtx"), ("artifact", "golden.safetensors"))), 4
    ):
        source = bundles(format, "fp32")
        name = read_main(source) if file == "artifact" else file
        bundle = tampered(
            source,
            tmp_path / f"{fault}-{format}-{file}",
            lambda place, _, damage=damage, name=name: damage(place / name),
            rehash=False,
        )  # type: ignore[misc]
        found.try_verify(f"{file} {fault} [{format}]", lambda bundle=bundle: verify(bundle))  # type: ignore[misc]
    found.tell(trials)


def test_faults_of_the_pipeline(
    trials: Trials, made: Written, pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The export itself records what it did not do, prepares golden images otherwise, or is asked for what labelled images
    contradict.
    """
    found = Catalogue()
    record, fit = bundle_record.manifest, images.fit
    recorded: dict[str, Callable[[Manifest], Any]] = {
        "another preprocessing recorded": lambda m: {
            "preprocessing": m.preprocessing.model_copy(update={"mean": (0.4,) * 3})
        },
        "labels recorded backwards": lambda m: {"labels": m.labels and m.labels[::-1]},
        "another shift recorded": lambda m: {"spec": m.spec.with_semantics("inplace")},
        "another input recorded": lambda m: {"input": m.input.model_copy(update={"shape": ("batch", 3, 28, 20)})},
        "another type of answers recorded": lambda m: {"output": m.output.model_copy(update={"dtype": "float16"})},
        "another interface recorded": lambda m: {"interface": Interface(output="probabilities")},
    }
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"kind {i}\n" for i in range(7)))
    for fault, change in some(trials, list(recorded.items()), 2):
        with monkeypatch.context() as patch:
            patch.setattr(
                bundle_record, "manifest", lambda *a, change=change: (m := record(*a)).model_copy(update=change(m))
            )
            wanted = request(made, tmp_path / "out", labels=labels)
            found.try_export(fault, lambda steps, wanted=wanted: deploy(wanted, steps))  # type: ignore[misc]
    fitted: dict[str, dict[str, Any]] = {
        "golden images by another filter": {"interpolation": "box"},
        "golden images cropped": {"crop_fraction": 0.9},
        "golden images squashed": {"resize": "squash"},
    }
    for fault, changes in some(trials, list(fitted.items()), 1):
        with monkeypatch.context() as patch:
            patch.setattr(images, "fit", lambda image, p, size, c=changes: fit(image, p.model_copy(update=c), size))
            made_here = deploy(request(made, tmp_path / "out", golden_images=pictures)).bundle.directory
        found.try_verify(fault, lambda made_here=made_here: verify(made_here))  # type: ignore[misc]
    shuffled = tmp_path / "shuffled"
    for folder in sorted(TEST_IMAGES.iterdir()):
        shutil.copytree(folder, shuffled / str((int(folder.name) + 3) % 10))
    contradicted = {
        "in-place semantics of a checkpoint trained with the paper's": ("inplace", TEST_IMAGES),
        "classes in another order than the images' folders": (None, shuffled),
    }
    for fault, (semantics, data) in some(trials, list(contradicted.items()), 1):
        wanted = ExportRequest(
            Source(PAPER_CHECKPOINT, semantics=semantics),  # type: ignore[arg-type]
            evidence=EvidenceOptions(data=data),
            output=OutputOptions(tmp_path / "out", force=True),
        )
        found.try_export(fault, lambda steps, wanted=wanted: deploy(wanted, steps))  # type: ignore[misc]
    found.tell(trials)
