"""Work that goes on and on neither grows nor mixes answers up.

One process can export, verify and answer for as long as it likes: it holds as much memory, as many open files and threads
after the last time as after the first few, and leaves nothing in the directory for temporary files. A session may be shared
by threads: each gets the answer to its own question, bit for bit what one thread alone gets. ONNX Runtime computes for
several threads at once; OpenVINO and TensorRT take one after another. Several processes may use one bundle.

Not covered: growth inside of GPU runtimes and drivers, which needs a GPU to be seen.
"""

from __future__ import annotations

import random
import resource
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers import npm
from helpers.fake_tensorrt import Fake, images
from helpers.formats import PRECISIONS
from helpers.processes import start
from helpers.reliability.growth import Growth, growth
from helpers.reliability.record import Trials
from helpers.support import command, save_checkpoint, small_spec
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.formats import registry
from s2mlp_deploy.pipeline import verify as verifying
from s2mlp_deploy.pipeline.deploy import deploy, deploy_all
from s2mlp_deploy.pipeline.request import ExportRequest, FormatOptions, GraphOptions, OutputOptions, Source
from s2mlp_deploy.quantization.settings import OPTIONS, Int8
from s2mlp_deploy.runtime.session import Session, TracingSession
from s2mlp_deploy.schema.array import Array

FORMATS = npm.formats(("onnx", "ort", "openvino", "web", "triton"))
"""The formats that run here."""

QUICK = ("onnx", "openvino")
"""Those that are tried without --thorough, where not all are: the two runtimes."""

CHANNELS = 160
"""Wide enough for one copy of the weights (1.7 MB) to stand out from what the allocator does."""

MOST_BYTES, MOST_BYTES_SOON = 48 * 1024, 512 * 1024
"""How much one more repetition may add to what the process holds: a thirtieth of the weights over fifty of them, a third
over the first few.

Where nothing is held, the line through the resident sizes still rises: the allocator's free lists and the runtimes' pools
settle. Measured were up to 15 KiB a repetition over fifty, and up to 110 KiB over the first eight.
"""

THREADS = 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("load")
    np.save(place / "calibration.npy", np.random.default_rng(0).standard_normal((64, 3, 20, 28)).astype(np.float32))
    return save_checkpoint(place / "small.pt", small_spec(channels=CHANNELS, classes=100))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory for temporary files that no other process uses."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def request(checkpoint: Path, format: str, precision: str, output: Path, *, dynamic: bool = False) -> ExportRequest:
    return ExportRequest(
        Source(checkpoint),
        graph=GraphOptions(dynamic_size=dynamic),
        precision=Int8(checkpoint.with_name("calibration.npy"), min_agreement=0.5)
        if precision == "int8"
        else OPTIONS[precision](),
        format=FormatOptions(format),
        output=OutputOptions(output, force=True),
    )


@pytest.fixture(scope="module")
def bundles(checkpoint: Path) -> Callable[[str, str], Path]:
    """A bundle of each format and precision that takes any batch and any image size; made when first asked for."""
    made: dict[tuple[str, str], Path] = {}

    def get(format: str, precision: str = "fp32") -> Path:
        if (format, precision) not in made:
            output = checkpoint.parent / f"{format}-{precision}"
            made[format, precision] = deploy(
                request(checkpoint, format, precision, output, dynamic=True)
            ).bundle.directory
        return made[format, precision]

    return get


def open_session(directory: Path) -> Session:
    bundle = read_bundle(directory)
    return registry.find(bundle.manifest.format).open(bundle.artifact)


# Growth


def check_growth(
    trials: Trials, what: str, work: Callable[[int], object], *, warmup: int, times: int, every: int = 1
) -> None:
    found = growth(work, warmup=warmup, times=times, every=every)
    trials.tried(what, times)
    trials.note(f"{what}: {found.bytes_each / 1024:+.1f} KiB each")
    assert found.things == (0, 0, 0), found
    assert found.bytes_each < (MOST_BYTES if trials.thorough else MOST_BYTES_SOON), found


@pytest.mark.thorough
@pytest.mark.parametrize("format", FORMATS)
def test_exports(trials: Trials, format: str, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Export in one process again and again, in float32, float16 and int8 in turn: after six exports, the next ones add
    less than 48 KiB each to resident memory (the weights are 1.7 MB), and no open file, thread or temporary file."""
    if format != "onnx" and not trials.thorough:
        pytest.skip("other formats are tried with --thorough")
    precisions = PRECISIONS if trials.thorough else PRECISIONS[:1]
    output = tmp_path_factory.mktemp("exports") / "bundle"

    def export(number: int) -> None:
        deploy(request(checkpoint, format, precisions[number % len(precisions)], output))

    check_growth(trials, f"exports ({format})", export, warmup=6, times=trials.times(8, 50))


@pytest.mark.thorough
@pytest.mark.parametrize("format", FORMATS)
def test_verifications(trials: Trials, format: str, bundles: Callable[[str, str], Path]) -> None:
    """Verify a bundle in one process again and again, layer by layer where the format shows them: the same limits."""
    if format != "onnx" and not trials.thorough:
        pytest.skip("other formats are tried with --thorough")
    bundle = bundles(format, "fp32")
    looks = verifying.shows_layers(format)

    def verify(number: int) -> None:
        assert verifying.verify(bundle, per_block=looks).passed

    check_growth(
        trials, f"verifications ({format})", verify, warmup=6, times=trials.times(6, 200), every=trials.times(3, 10)
    )


@pytest.mark.parametrize("format", FORMATS)
def test_sessions_that_are_opened_and_dropped(trials: Trials, format: str, bundles: Callable[[str, str], Path]) -> None:
    """Open a session, ask it once and drop it, again and again: the same limits."""
    if format != "onnx" and not trials.thorough:
        pytest.skip("other formats are tried with --thorough")
    bundle = read_bundle(bundles(format, "fp32"))
    target, x = registry.find(format), questions(1)[0]

    def once(number: int) -> None:
        target.open(bundle.artifact).run(x)

    check_growth(trials, f"sessions ({format})", once, warmup=6, times=trials.times(10, 200), every=trials.times(5, 10))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("format", FORMATS)
def test_runs_of_one_session(trials: Trials, format: str, precision: str, bundles: Callable[[str, str], Path]) -> None:
    """Ask one session again and again, in batches of one to five of several image sizes: less than 1 KiB a run."""
    if (format not in QUICK or precision != "fp32") and not trials.thorough:
        pytest.skip("other formats and precisions are tried with --thorough")
    session, asked = open_session(bundles(format, precision)), questions(12)
    times = trials.times(300, 10_000)

    def again() -> Growth:
        return growth(
            lambda n: session.run(asked[n % len(asked)]), warmup=100, times=times, every=times // trials.times(3, 20)
        )

    # Over a few hundred runs one step of an allocator, of a third of a megabyte, looks like a leak; it does not come a second time.
    found = again()
    found = found if found.bytes_each < 1024 else again()
    trials.tried("runs", times)
    trials.note(f"{format} {precision}: {found.bytes_each:+.0f} bytes a run")
    assert found.things == (0, 0, 0) and found.bytes_each < 1024, found


# Threads


def questions(count: int, seed: int = 0) -> list[Array]:
    """Batches of one to five images of three sizes."""
    rng = np.random.default_rng(seed)
    sizes = ((20, 28), (24, 20), (8, 12))
    return [rng.standard_normal((1 + n % 5, 3, *sizes[n % len(sizes)]), dtype=np.float32) for n in range(count)]


def ask_at_once(ask: Callable[[Array], Sequence[Array]], asked: Sequence[Array], times: int) -> int:
    """Let eight threads ask all of ``asked`` in orders of their own, ``times`` in all; the number of answers that are not,
    bit for bit, what one thread alone gets.

    A thread that waits for ever is found, too.
    """
    alone = [ask(x) for x in asked]
    wrong = []
    start = threading.Barrier(THREADS)

    def client(seed: int) -> None:
        order = random.Random(seed)
        start.wait(600)
        for _ in range(times // THREADS):
            n = order.randrange(len(asked))
            answer = ask(asked[n])
            if not all(np.array_equal(a, b) for a, b in zip(answer, alone[n], strict=True)):
                wrong.append(n)

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads of Python change places much more often than usual
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(client, seed) for seed in range(THREADS)]:
                done.result(timeout=1200)
    finally:
        sys.setswitchinterval(usual)
    return len(wrong)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("format", FORMATS)
def test_threads_that_share_a_session(
    trials: Trials, format: str, precision: str, bundles: Callable[[str, str], Path]
) -> None:
    """Let eight threads ask one session at once, each in an order of its own, for batches of one to five images of three
    sizes: every answer is, bit for bit, what one thread alone gets."""
    if (format not in QUICK or precision == "fp16") and not trials.thorough:
        pytest.skip("other formats and precisions are tried with --thorough")
    session, times = open_session(bundles(format, precision)), trials.times(400, 8000)
    assert ask_at_once(lambda x: (session.run(x),), questions(30), times) == 0
    trials.tried("requests", times)


@pytest.mark.parametrize("format", [f for f in FORMATS if verifying.shows_layers(f)])
def test_threads_that_look_inside(trials: Trials, format: str, bundles: Callable[[str, str], Path]) -> None:
    """The same where threads look at different layers, which takes another copy of the model each time: right layers."""
    if format != "onnx" and not trials.thorough:
        pytest.skip("other formats are tried with --thorough")
    directory = bundles(format, "fp32")
    session = open_session(directory)
    assert isinstance(session, TracingSession)
    names = list(golden_tensors.load(read_bundle(directory).golden).trace)[:-1]
    pairs = [(a, b) for a in names for b in names if a != b]

    def look(x: Array) -> tuple[Array, ...]:
        chosen = pairs[int(abs(x[0, 0, 0, 0]) * 1e4) % len(pairs)]
        return tuple(session.trace(x, chosen)[name] for name in chosen)

    times = trials.times(40, 240)
    assert ask_at_once(look, questions(12), times) == 0
    trials.tried("looks inside", times)


def test_threads_that_share_an_engine(trials: Trials) -> None:
    """The same with a session of TensorRT on a stand-in for GPU and engine, whose copies and kernels take turns with other
    threads: batches of one to nine images, of two sizes, which are put together from several runs and CUDA graphs."""
    fake = Fake(sizes=(8, 8, 16))
    fake.cuda.pause = Pause()
    session, times = fake.session(), trials.times(400, 8000)
    asked = [images(1 + n % 9, (8, 16)[n % 2], seed=n) for n in range(18)]
    assert ask_at_once(lambda x: (session.run(x),), asked, times) == 0
    trials.tried("requests", times)


class Pause:
    """Lets other threads run, as a driver does that waits for the GPU."""

    def __call__(self) -> None:
        threading.Event().wait(1e-5)


def test_threads_that_verify(trials: Trials, bundles: Callable[[str, str], Path]) -> None:
    """Verify a bundle in eight threads of one process at once: all pass, and the bound on memory that a verification sets
    for the process is gone afterwards."""
    bundle, times = bundles("onnx", "fp32"), trials.times(16, 400)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with ThreadPoolExecutor(THREADS) as pool:
        assert all(found.passed for found in pool.map(verifying.verify, [bundle] * times))
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    trials.tried("verifications", times)


# Processes, and many bundles


def test_processes_that_share_a_bundle(trials: Trials, bundles: Callable[[str, str], Path], tmp_path: Path) -> None:
    """Verify and benchmark one bundle in four processes at once: all end well, and the bundle stays as it is."""
    for format in FORMATS[: trials.times(1, len(FORMATS))]:
        bundle = bundles(format, "fp32")
        before = sorted((p.name, p.stat().st_mtime_ns) for p in bundle.iterdir())
        race = ("bench", bundle, "--min-seconds", 0.1, "--min-rounds", 10, "--no-energy")
        quick = () if trials.thorough else ("--no-cold", "--no-bound")
        running = [
            start(name, tmp_path / f"{n}", *told)
            for n, (name, *told) in enumerate(
                [("verify", bundle), ("verify", bundle), (*race, *quick), (*race, *quick)]
            )
        ]
        assert [(process.wait(1200), process.text) for process in running if process.wait(1200)] == []
        assert sorted((p.name, p.stat().st_mtime_ns) for p in bundle.iterdir()) == before
        trials.tried("processes", len(running))


@pytest.mark.thorough
def test_many_bundles_in_one_race(trials: Trials, bundles: Callable[[str, str], Path], tmp_path: Path) -> None:
    """Race twenty bundles against each other, of all formats and precisions: all are there, and none gives a wrong answer."""
    kinds = [(f, p) for p in PRECISIONS for f in FORMATS] if trials.thorough else [("onnx", "fp32"), ("ort", "fp32")]
    made = [bundles(*kind) for kind in kinds]
    places = [Path(shutil.copytree(made[n % len(made)], tmp_path / f"number{n:02d}")) for n in range(20)]
    quick = () if trials.thorough else ("--no-cold", "--no-bound", "--no-energy")
    ran = command(
        "s2mlp-bench",
        "s2mlp_bench.cli",
        "main",
        *places,
        "--min-seconds",
        0.1,
        "--min-rounds",
        10,
        *quick,
        "--json-file",
        tmp_path / "race.json",
    )
    assert ran.code == 0, ran.err
    assert all(f"number{n:02d}" in ran.out for n in range(20))
    trials.tried("bundles", len(places))


@pytest.mark.thorough
def test_many_artifacts_in_one_call(trials: Trials, checkpoint: Path, tmp_path: Path) -> None:
    """Export one checkpoint in every format and precision in one call: each bundle verifies, and is byte for byte the one
    that a call of its own makes."""
    kinds = [(f, p) for f in FORMATS for p in PRECISIONS][:: trials.times(8, 1)]
    requests = [request(checkpoint, f, p, tmp_path / f"{f}-{p}") for f, p in kinds]
    for (format, precision), made in zip(kinds, deploy_all(requests), strict=True):
        assert verifying.verify(made.bundle.directory).passed
        alone = deploy(request(checkpoint, format, precision, tmp_path / "alone")).bundle
        assert alone.manifest == made.bundle.manifest  # which holds the hashes of all files
        trials.tried("artifacts")
