"""Bundles from strangers are refused before anything in them is loaded.

Before a runtime, a decoder of images or even a reader of tensors is called, the manifest is read strictly and within bounds, every
file that it lists must be a plain file of its hash, and every file that will be used must be listed. Whoever changes a file can
change its hash too, so after that each format looks at its artifact without its runtime, and refuses what no export writes: weights
that are read from elsewhere or are not whole, operators of libraries, branches, loops and functions, XML that refers to other
files, settings that make ONNX Runtime read or write files. What is left must compute what the golden tensors say, within memory
that follows from the bundle's size (2 GiB and eight times its files; kept by Linux, for formats that run on the processor).

Repaired networks of other tools may have branches and loops. Only ONNX Runtime takes loops, and each run with one is stopped after a
minute.

Not covered: a bundle is not signed. Somebody who changes model, golden tensors and hashes together, so that they fit each other,
has made another healthy bundle, and the pages of a `web` bundle and the engines of TensorRT are programs: take those from
somebody you trust. What the manifest only tells, such as the versions of packages, nothing can hold it to. A file that is changed
between the moment when its hash is taken and the moment when the runtime opens it is not noticed: do not check a directory that
others can write to. A graph of ordinary operators may take long; Ctrl-C ends it. Faults in the runtimes themselves are theirs.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image
from safetensors.numpy import load_file, save_file

from helpers import looping, npm, processes
from helpers.damaged_bundles import rehash
from helpers.formats import change_manifest, exported, manifest_of, replace_file
from helpers.reliability import hostile_bundles as hostile
from helpers.reliability import hostile_networks
from helpers.reliability.confined import Used, confine
from helpers.reliability.hostile_bundles import Change
from helpers.reliability.record import Trials
from helpers.reliability.watching import Bait, loads, within
from helpers.support import Ran, command, run, save_checkpoint, small_spec

SECONDS = 10
GIB = 1 << 30

pytestmark = pytest.mark.npm()

WITH_GRAPH = ("onnx", "ort-onnx", "web", "triton", "trt-rtx")
"""Bundles that hold an ONNX file."""

REFUSED, DIFFERENT = 3, 1


MODULES = {"litert": "ai_edge_litert", "executorch": "executorch", "coreml": "coremltools"}
"""The modules that formats need and that are not everywhere."""

ELSEWHERE = ("trt-rtx", *(["coreml"] if sys.platform != "darwin" else []))
"""Formats whose bundles are pending a device that is not here."""


def _made_here(name: str, precision: str, *, thorough: bool) -> bool:
    """Whether bundles of the format ``name`` are made: ExecuTorch's, which take seconds, by ``--thorough`` alone, and not at fp16."""
    if name == "executorch" and not (thorough and precision == "fp32"):
        return False
    return bool(npm.formats([name])) and (name not in MODULES or find_spec(MODULES[name]) is not None)


def _export(place: Path, seed: int, *, engine: bool, thorough: bool, more: tuple[object, ...] = ()) -> None:
    """A bundle of every format, of the checkpoint with this ``seed``, with three golden images; ``engine``: one that can be loaded."""
    place.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 28, 3), np.uint8)
        (place / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place / "images" / f"{i}.png")
    checkpoint = save_checkpoint(place / "small.pt", small_spec(), seed=seed)
    exported(checkpoint, "--golden-images", place / "images", *more, "-o", place / "onnx")
    precision = manifest_of(place / "onnx")["precision"]
    for name, *options in [
        ("ort",),
        ("openvino",),
        ("triton",),
        ("web",),
        ("litert",),
        ("executorch",),
        ("coreml", "--allow-unverified-engine"),
        ("ort-onnx", "--ort-style", "onnx"),
    ]:
        if _made_here(name, precision, thorough=thorough):
            exported(
                place / "onnx",
                "--format",
                name.partition("-")[0],
                "--precision",
                precision,
                *options,
                "-o",
                place / name,
            )
    rtx = ["--format", "trt-rtx", "--precision", precision, "--allow-unverified-engine", "-o", place / "trt-rtx"]
    if not engine or run("export", place / "onnx", *rtx).code:
        _stand_in(place)


def _stand_in(place: Path) -> None:
    """An engine that nothing could load: what is refused is refused before that."""
    bundle = Path(shutil.copytree(place / "onnx", place / "trt-rtx"))
    settings = {name: ["1"] for name in ("built_for", "smallest", "usual", "largest", "options")}
    change_manifest(
        bundle,
        lambda m: (
            m.update(
                format="trt-rtx",
                artifact="model.plan",
                graph=["model.onnx"],
                verdict="pending a device",
                engine={"runtime": "tensorrt_rtx", "runtime_version": "1", **settings},
            ),
            m["files"].update({"model.plan": ""}),
        ),
    )
    replace_file(bundle, "model.plan", b"no engine")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """``one`` and ``other``, of two checkpoints, and ``half`` of the first: a bundle of every format in each. ``networks`` has a
    repaired network with a loop."""
    place = tmp_path_factory.mktemp("made")
    thorough = bool(request.config.getoption("--thorough", default=False))
    _export(place / "one", 0, engine=thorough, thorough=thorough)
    (place / "networks").mkdir()
    ran = run("repair", looping.save(place / "looping.onnx", 5), "-o", place / "networks" / "onnx")
    assert ran.code == 0, ran.err
    if thorough:
        _export(place / "other", 1, engine=False, thorough=True)
        _export(place / "half", 0, engine=False, thorough=True, more=("--precision", "fp16"))
    else:
        (place / "other").mkdir()
        exported(
            save_checkpoint(place / "other.pt", small_spec(), seed=1),
            "--golden-images",
            place / "one" / "images",
            "-o",
            place / "other" / "onnx",
        )
    return place


@dataclass
class Victim:
    """Somebody who was sent a bundle, and runs every command on it."""

    place: Path
    made: Path
    bait: Bait
    slowest: float = 0.0

    def sent(self, format: str, change: Change, of: str = "one") -> Path:
        """A bundle, changed."""
        shutil.rmtree(self.place / "inbox", ignore_errors=True)
        (self.place / "inbox").mkdir()
        bundle = Path(shutil.copytree(self.made / of / format, self.place / "inbox" / "bundle"))
        (self.place / "inbox" / "bait").symlink_to(self.place / "bait")
        change(bundle)
        return bundle

    def refuses(
        self,
        format: str,
        change: Change,
        what: str,
        *,
        loaded: bool = False,
        codes: tuple[int, ...] = (REFUSED,),
        commands: tuple[str, ...] = ("verify", "bench", "export"),
        of: str = "one",
    ) -> int:
        """Every command refuses a changed bundle of ``format``; how many did."""
        bundle = self.sent(format, change, of)
        before = sorted(path.relative_to(self.place) for path in self.place.rglob("*"))
        for name in commands:
            started = time.process_time()
            with loads() as done, within(60 * SECONDS):
                ran = self._run(name, bundle)
            self.slowest = max(self.slowest, time.process_time() - started)
            where = f"s2mlp-{name}, {format}, {what}: {ran.code} {ran.out[-500:]} {ran.err[-1500:]}"
            errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
            assert ran.code in codes and "Traceback" not in ran.err, where
            assert len(errors) == 1 or (ran.code == DIFFERENT and name == "verify" and not errors), where
            assert all(line.startswith("error: ") or line.endswith("…") for line in ran.err.splitlines()), where
            assert loaded or not done, (done, where)
            assert not self.bait.taken(), where
            assert sorted(path.relative_to(self.place) for path in self.place.rglob("*")) == before, where
        assert self.slowest < SECONDS
        return len(commands)

    def _run(self, name: str, bundle: Path) -> Ran:
        if name == "bench":
            return command(
                "s2mlp-bench", "s2mlp_bench.cli", "main", bundle, "--no-cold", "--no-bound", "--min-seconds", 0
            )
        options = ["--format", "ort", "-o", self.place / "out"] if name == "export" else []
        return run(name, bundle, *options)


@pytest.fixture
def victim(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Victim]:
    bait = Bait(tmp_path / "bait")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield Victim(tmp_path, made, bait)
    bait.close()


def formats(made: Path) -> list[str]:
    return sorted(path.name for path in (made / "one").iterdir() if (path / "manifest.json").exists())


def every(items: list[Any], trials: Trials, few: int) -> list[Any]:
    """All of ``items``, or about ``few`` of them, evenly."""
    return items if trials.thorough else items[:: max(1, len(items) // few)]


def nothing_changed(bundle: Path) -> None:
    """A bundle as it was made."""


def test_healthy_bundles_are_not_refused(victim: Victim, trials: Trials) -> None:
    """Bundles as they were made are checked, so that what the other rows refuse is refused for a reason; and the spies see
    every runtime that loads one."""
    seen = set()
    for format in formats(victim.made):
        bundle = victim.sent(format, nothing_changed)
        with loads() as done:
            ran = run("verify", bundle)
        assert ran.code == (4 if format in ELSEWHERE else 0), ran.err
        seen |= set(done)
        trials.tried("bundles checked" if ran.code == 0 else "bundles that were left, since they need another device")
    if "executorch" in formats(victim.made):
        assert "executorch.extension.pybindings._C._load_program" in seen
    assert {"onnxruntime.InferenceSession", "openvino.frontend.FrontEndManager", "PIL.Image.open"} <= seen
    assert {"s2mlp_deploy.bundle.golden_tensors.load_file"} <= seen


def test_what_stands_in_the_place_of_a_file(victim: Victim, trials: Trials) -> None:
    """A pipe, a socket, a device, a link or a directory stands in the place of a file, the manifest too; every command refuses
    within 10 seconds."""
    for format in formats(victim.made):
        names = [*manifest_of(victim.made / "one" / format)["files"], "manifest.json"]
        cases = [(name, what) for name in names for what in hostile.NO_FILES]
        for name, what in every(cases, trials, 12 if format == "onnx" else 1):
            if "device that" in what and os.geteuid() != 0:
                continue
            change = partial(lambda bundle, name, what: hostile.NO_FILES[what](bundle, name), name=name, what=what)
            trials.tried("refusals", victim.refuses(format, change, f"{what} as {name}"))


def test_names_that_lead_elsewhere(victim: Victim, trials: Trials) -> None:
    """The manifest names files by paths that lead out of the bundle, with characters that mean something else elsewhere, or as
    devices of Windows."""
    places = ("files", "artifact", "graph", "golden_images")
    cases = [(place, name) for place in places for name in hostile.NO_NAMES]
    for place, name in every(cases, trials, 20):
        for format in formats(victim.made) if trials.thorough else ["onnx"]:
            trials.tried("refusals", victim.refuses(format, hostile.named(place, name), f"{place}: {name[:50]!r}"))


def test_manifests_that_are_none(victim: Victim, trials: Trials) -> None:
    """Manifests with numbers that are none, keys twice at any depth, a million entries, 100 MB, nesting, files that are used but
    not listed."""
    for what, change in every(list(hostile.MANIFESTS.items()), trials, 24):
        for format in formats(victim.made) if trials.thorough else ["onnx"]:
            commands = ("verify", "bench", "export") if trials.thorough else ("verify",)
            trials.tried("refusals", victim.refuses(format, change, what, commands=commands))
    large = list(hostile.LARGE_MANIFESTS.items())
    for what, change in large if trials.thorough else large[-1:]:  # which no format reads otherwise
        trials.tried(
            "refusals",
            victim.refuses("onnx", change, what, commands=("verify", "bench", "export")[: trials.times(1, 3)]),
        )
    trials.most("slowest", victim.slowest, f"{victim.slowest:.1f} s of processor time")


def test_graphs_that_could_do_more_than_compute(victim: Victim, trials: Trials) -> None:
    """ONNX files whose hash is right, with weights from other files, operators of libraries, branches, loops, functions, shapes
    that nothing could hold; refused before ONNX Runtime or TensorRT sees them. The kernel tells that no other file is opened."""
    for format in WITH_GRAPH:
        if format not in formats(victim.made):
            continue
        commands = ("verify", "bench", "export") if format == "onnx" else ("verify", "bench")
        for what, change in every(list(hostile.GRAPHS.items()), trials, 9 if format == "onnx" else 1):
            trials.tried("refusals", victim.refuses(format, change, what, commands=commands))


def test_settings_and_files_of_formats(victim: Victim, trials: Trials) -> None:
    """What is a format's own, with hashes that are right: OpenVINO's XML with entities, extensions and weights out of range, .ort
    and .tflite files, .pte programs and Core ML packages with branches, operators of libraries and weights elsewhere, ONNX Runtime's
    options that write files, Triton's configuration, files that are not listed."""
    for format, changes in hostile.SETTINGS.items():
        if format not in formats(victim.made):
            continue
        commands = ("verify", "bench", "export") if format == "onnx" else ("verify", "bench")
        for what, change in every(list(changes.items()), trials, 4):
            trials.tried("refusals", victim.refuses(format, change, what, commands=commands))


def test_a_changed_byte_of_any_file(victim: Victim, trials: Trials) -> None:
    """A byte is changed: the first, the last, and others drawn at random, of every file that is listed."""
    rng = np.random.default_rng(5)
    for format in formats(victim.made):
        bundle = victim.sent(format, nothing_changed)
        names = list(manifest_of(bundle)["files"])
        for name in names if trials.thorough or format != "web" else names[::6]:
            file = bundle / name
            original = file.read_bytes()
            last = len(original) - 1
            for offset in [0, last, *rng.integers(0, last + 1, trials.times(1, 20)).tolist()]:
                with file.open("r+b") as content:
                    content.seek(offset)
                    content.write(bytes([original[offset] ^ int(rng.integers(1, 256))]))
                with loads() as done:
                    ran = run("verify", bundle)
                assert ran.code == REFUSED and str(file) in ran.err and "SHA-256" in ran.err and not done, (
                    name,
                    offset,
                    ran,
                )
                file.write_bytes(original)
                trials.tried("changed bytes found")


HARMLESS = {
    "tool_version",
    "versions",
    "lowering",
    "opset",
    "source",
    "engine",
    "tolerance",
    "precision",
    "quantization",
    "format",
}
"""What a changed byte may alter unnoticed: what the manifest only tells, and limits that the bundle still keeps."""


def test_a_changed_byte_of_the_manifest(victim: Victim, trials: Trials) -> None:
    """A byte of the manifest is changed: each in turn. It is refused, or what it says is checked and found to differ, or it is
    among what a manifest only tells, such as versions of packages."""
    bundle = victim.sent("onnx", nothing_changed)
    path = bundle / "manifest.json"
    original = path.read_bytes()
    rng = np.random.default_rng(6)
    offsets = list(range(len(original))) if trials.thorough else rng.integers(0, len(original), 60).tolist()
    for offset in offsets:
        changed = bytearray(original)
        changed[offset] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        ran = run("verify", bundle)
        assert ran.code in (0, DIFFERENT, REFUSED, 4) and "Traceback" not in ran.err, (offset, ran)
        if ran.code == 0:
            now, before = json.loads(bytes(changed)), json.loads(original)
            assert {key for key in before if now.get(key) != before[key]} <= HARMLESS, (
                offset,
                changed[offset - 50 : offset + 50],
            )
            trials.tried("changed bytes that nothing depends on")
        else:
            trials.tried("changed bytes refused")


REPORTS: dict[str, Callable[[Path], object]] = {
    "words": lambda path: path.write_text("my notes"),
    "bytes": lambda path: path.write_bytes(b"\xff\0" * 1000),
    "nesting": lambda path: path.write_text("[" * 500_000),
    "a number that is none": lambda path: path.write_text('{"trials": [{"accuracy": NaN}]}'),
    "a huge number": lambda path: path.write_text('{"images": {"accuracy": 1e999}}'),
    "more than everything": lambda path: path.write_text('{"images": {"accuracy": 17}}'),
    "another type": lambda path: path.write_text('{"images": {"accuracy": {"a": []}}}'),
    "escapes": lambda path: path.write_text('{"images": {"accuracy": "\\u001b[31m"}}'),
    "100 MB": lambda path: path.write_bytes(b" " * 100_000_000),
    "a pipe": lambda path: os.mkfifo(path),
    "a link": lambda path: path.symlink_to(path.parents[2] / "bait"),
    "a directory": lambda path: path.mkdir(),
    "nothing": lambda path: None,
}


def test_the_report_is_harmless_whatever_it_holds(victim: Victim, trials: Trials) -> None:
    """The report, which is not hashed, is replaced by anything: pipes, links, 100 MB. Commands go on as if there were none."""
    for what, write in every(list(REPORTS.items()), trials, 13):
        bundle = victim.sent("onnx", nothing_changed)
        (bundle / "report.json").unlink()
        write(bundle / "report.json")
        with within(60 * SECONDS):
            assert run("verify", bundle).code == 0, what
            if trials.thorough or what in ("a pipe", "a link", "a huge number"):
                result = victim.place / "result.json"
                ran = command(
                    "s2mlp-bench",
                    "s2mlp_bench.cli",
                    "main",
                    bundle,
                    "--no-cold",
                    "--no-bound",
                    "--min-seconds",
                    0,
                    "--min-rounds",
                    6,
                    "--no-energy",
                    "--json-file",
                    result,
                    "--force",
                )
                assert ran.code == 0, (what, ran.err)
                assert "1e+999" not in result.read_text() and "Infinity" not in result.read_text()
        assert not victim.bait.taken(), what
        trials.tried("reports")


def test_repaired_networks(victim: Victim, trials: Trials) -> None:
    """Repaired networks, whose manifests state inputs, outputs and golden tensors of any shape: these are none, lie, or are too many;
    their graphs, and the bodies of their loops, could do more than compute."""
    with loads() as done:
        assert run("verify", victim.sent("onnx", nothing_changed, "networks")).code == 0
    assert "onnxruntime.InferenceSession" in done
    codes = (DIFFERENT, REFUSED)
    kinds = [
        (hostile_networks.MANIFESTS, {"loaded": True, "codes": codes}, 7),
        (hostile_networks.GOLDEN, {"loaded": True, "codes": codes}, 4),
        (hostile_networks.GRAPHS, {}, 4),
        (hostile_networks.LOOPS, {}, 3),
    ]
    for changes, expected, few in kinds:
        for what, change in every(list(changes.items()), trials, few):
            commands = ("verify", "bench", "export") if trials.thorough else ("verify",)
            trials.tried("refusals", victim.refuses("onnx", change, what, commands=commands, of="networks", **expected))


def test_loops_that_do_not_end(victim: Victim, trials: Trials) -> None:
    """Loops of 2^62 trips in a repaired network: one that keeps a million numbers on every trip is refused where memory ends, one
    that keeps nothing after a minute."""
    changes = {"memory": hostile_networks.COLLECTING, "time": hostile_networks.ENDLESS}
    for what, change in list(changes.items())[: trials.times(1, 2)]:
        bundle = victim.sent("onnx", change, "networks")
        with within(200):
            running = processes.start("verify", victim.place / "log", bundle)
            code = running.wait()
        assert code == REFUSED and "Traceback" not in running.text, (what, code, running.text[-1500:])
        assert what != "time" or "the model has loops and ran for 60 s" in running.text
        trials.tried("loops stopped")


def _swapped(name: str, other: Path) -> Change:
    return lambda bundle: replace_file(bundle, name, (other / name).read_bytes())


def _golden(change: Callable[[dict[str, Any]], object]) -> Change:
    def apply(bundle: Path) -> None:
        tensors = load_file(bundle / "golden.safetensors")
        change(tensors)
        save_file(tensors, bundle / "golden.safetensors")
        rehash(bundle)

    return apply


def _weights(change: Callable[[Any], Any]) -> Change:
    def apply(bundle: Path) -> None:
        name = next(name for name in manifest_of(bundle)["files"] if name.endswith(".onnx"))
        model = onnx.load(bundle / name)
        tensor = max((t for t in model.graph.initializer if t.data_type == 1), key=lambda t: len(t.raw_data))
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
        del model.metadata_props[:]
        replace_file(bundle, name, model.SerializeToString())

    return apply


def _another_graph(bundle: Path) -> None:
    """The answer is added to itself."""
    name = next(name for name in manifest_of(bundle)["files"] if name.endswith(".onnx"))
    model = onnx.load(bundle / name)
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[list(last.output).index("logits")] = "before"
    model.graph.node.append(helper.make_node("Add", ["before", "before"], ["logits"]))
    replace_file(bundle, name, model.SerializeToString())


def test_other_healthy_files_under_this_name(victim: Victim, trials: Trials) -> None:
    """Models, engines, golden tensors and manifests of another checkpoint, precision or format, all whole and with hashes that are
    right: found by their numbers at the latest, with exit code 1 or 3, and nothing is published."""
    other, half = victim.made / "other", victim.made / "half"
    changes: dict[tuple[str, str], Change] = {
        ("onnx", "the model of another checkpoint"): _swapped("model.onnx", other / "onnx"),
        ("onnx", "golden tensors of another checkpoint"): _swapped("golden.safetensors", other / "onnx"),
        ("onnx", "the manifest of another checkpoint"): lambda bundle: (
            shutil.copy(other / "onnx" / "manifest.json", bundle),
            rehash(bundle),
        ),
        ("onnx", "another graph"): _another_graph,
        ("onnx", "weights a little off"): _weights(lambda w: w * np.float32(1.001)),
        ("onnx", "weights that are NaN"): _weights(lambda w: w * np.float32(np.nan)),
        ("onnx", "golden logits a little off"): _golden(lambda t: t["logits/noise"].__imul__(np.float32(1.0001))),
        ("onnx", "golden inputs in another order"): _golden(
            lambda t: t.update({"input/noise": t["input/noise"][::-1].copy()})
        ),
    }
    if trials.thorough:
        for format, name in (
            ("ort", "model.ort"),
            ("openvino", "model.bin"),
            ("triton", "1/model.onnx"),
            ("litert", "model.tflite"),
            ("executorch", "model.pte"),
            ("web", "model.onnx"),
            ("ort-onnx", "model.onnx"),
        ):
            if format not in formats(victim.made):
                continue
            changes[format, "of another checkpoint"] = _swapped(name, other / format)
            changes[format, "golden tensors of another checkpoint"] = _swapped("golden.safetensors", other / format)
            if name not in ("model.bin", "model.pte"):
                changes[format, "of another precision"] = _swapped(name, half / format)
        changes["onnx", "of another precision"] = _swapped("model.onnx", half / "onnx")
        changes["ort", "the file of another format"] = lambda bundle: replace_file(
            bundle, "model.ort", (victim.made / "one" / "onnx" / "model.onnx").read_bytes()
        )
        changes["onnx", "the file of another format"] = lambda bundle: replace_file(
            bundle, "model.onnx", (victim.made / "one" / "ort" / "model.ort").read_bytes()
        )
    for (format, what), change in changes.items():
        commands = ("verify", "bench", "export") if format == "onnx" else ("verify", "bench")
        codes = (DIFFERENT, REFUSED)
        trials.tried("refusals", victim.refuses(format, change, what, loaded=True, codes=codes, commands=commands))


def _more(*nodes: onnx.NodeProto, **weights: Any) -> Change:
    """Nodes whose last output is added to the answer."""

    def change(bundle: Path) -> None:
        model = onnx.load(bundle / "model.onnx")
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
        last = next(node for node in model.graph.node if "logits" in node.output)
        last.output[list(last.output).index("logits")] = "before"
        total = helper.make_node("ReduceMax", [nodes[-1].output[0]], ["total"], keepdims=0)
        model.graph.node.extend([*nodes, total, helper.make_node("Add", ["before", "total"], ["logits"])])
        replace_file(bundle, "model.onnx", model.SerializeToString())

    return change


def _doubling(times: int) -> Change:
    nodes = [helper.make_node("Concat", [f"x{i}"] * 2, [f"x{i + 1}"], axis=0) for i in range(times)]
    return _more(*nodes, x0=np.ones(1024, np.float32))


BOMBS: dict[str, Change] = {
    "a column times a row": _more(
        helper.make_node("MatMul", ["column", "row"], ["product"]),
        column=np.ones((60_000, 1), np.float32),
        row=np.ones((1, 60_000), np.float32),
    ),
    "a constant of a shape": _more(
        helper.make_node("ConstantOfShape", ["shape"], ["big"]), shape=np.array([4 * 10**9])
    ),
    "a constant of an impossible shape": _more(
        helper.make_node("ConstantOfShape", ["shape"], ["big"]), shape=np.array([2**62])
    ),
    "what is expanded": _more(
        helper.make_node("Expand", ["one", "shape"], ["big"]),
        one=np.ones((1, 1), np.float32),
        shape=np.array([80_000, 80_000]),
    ),
    "a range": _more(
        helper.make_node("Range", ["from", "to", "step"], ["big"]),
        **{"from": np.array(0.0), "to": np.array(4e9), "step": np.array(1.0)},
    ),
    "what is padded": _more(
        helper.make_node("Pad", ["one", "pads"], ["big"]), one=np.ones(1, np.float32), pads=np.array([0, 4 * 10**9])
    ),
    "what is doubled 24 times": _doubling(24),
    "what is doubled 50 times": _doubling(50),
    "a batch of 500,000": lambda bundle: change_manifest(
        bundle, lambda m: (m["input"]["shape"].__setitem__(0, 500_000), m["output"]["shape"].__setitem__(0, 500_000))
    ),
}
"""Graphs of ordinary operators that ask for more memory than there is."""


@pytest.mark.skipif(sys.platform != "linux", reason="the bound is kept by Linux alone")
def test_graphs_that_ask_for_all_memory(victim: Victim, trials: Trials) -> None:
    """Graphs of a few bytes that ask for 15 GB and more, by ordinary operators: each is refused within 10 seconds and 2 GiB above
    what the bundle takes, by ONNX Runtime and where OpenVINO compiles it."""
    largest = 0
    for what, change in every(list(BOMBS.items()), trials, 1):
        bundle = victim.sent("onnx", change)
        size = sum(file.stat().st_size for file in bundle.iterdir())
        out = victim.place / "out"
        for name, *options in [
            ["verify"],
            ["export", "--format", "ort", "-o", out],
            ["export", "--format", "openvino", "-o", out],
        ][: trials.times(2, 3)]:
            report = victim.place / "used"
            running = processes.start(
                name, victim.place / "log", bundle, *options, before=partial(confine, 200 * GIB, SECONDS, report)
            )
            code = running.wait()
            assert code in (DIFFERENT, REFUSED, 4) and "Traceback" not in running.text, (
                what,
                name,
                options,
                code,
                running.text[-1500:],
            )
            used = Used.read(report)
            assert used.bytes < size + 2.2 * GIB, (what, name, options, used)
            assert not out.exists()
            largest = max(largest, used.bytes)
            trials.tried("refusals")
    trials.most("largest memory", largest, f"{largest / 2**20:,.0f} MiB")


def _bomb(size: tuple[int, int], format: str = "PNG") -> Change:
    def change(bundle: Path) -> None:
        if format == "EPS":
            content = (
                b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 20\n%%EndComments\n(/tmp/written) (w) file closefile\n"
            )
        else:
            Image.new("L", size).save(bundle.parent / "bomb", format)
            content = (bundle.parent / "bomb").read_bytes()
            (bundle.parent / "bomb").unlink()
        replace_file(bundle, "image-01.png", content)

    return change


def test_golden_images_that_are_bombs(victim: Victim, trials: Trials) -> None:
    """Golden images, with hashes that are right, that unpack to hundreds of megabytes, or are of formats whose decoders start programs."""
    changes = {
        "80 million pixels": _bomb((10_000, 8000)),
        "two million": _bomb((2000, 1000)),
        "PostScript": _bomb((28, 20), "EPS"),
        "an icon": _bomb((28, 20), "ICO"),
        "another size": _bomb((28, 21)),
    }
    for what, change in every(list(changes.items()), trials, 5):
        codes = (DIFFERENT,) if what == "another size" else (REFUSED,)
        trials.tried("refusals", victim.refuses("onnx", change, what, loaded=True, codes=codes, commands=("verify",)))
