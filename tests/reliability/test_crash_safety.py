"""Whatever ends an export, a bundle is whole or not there.

A bundle is put together in a hidden directory beside its place, flushed to disk and then renamed; where one is there already
(`--force`), the two names are exchanged in one step. So there is no moment at which half a bundle has the name. A process that
is killed leaves its hidden directory behind; the next export to the same directory recognises it by a lock that nobody holds
any more, and removes it. Work in progress is locked, and stays.

On file systems that cannot exchange names (and on macOS and Windows), the old bundle steps aside for a moment. A kill in that
moment leaves the old bundle under a hidden name, and the next export to the same directory gives it back. Where file locks
cannot be had (Windows, some network file systems), what a killed process has left is not removed: delete `.s2mlp-*` by hand.

Ctrl-C, `kill` and a terminal that closes end an export within two seconds, with exit code 130, 143 or 129, also while a runtime
compiles: nothing is left then.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import processes
from formats import promised
from record import Trials
from s2mlp_deploy import artifact, scratch
from support import save_checkpoint, small_spec

FORMATS = {"onnx": [], "onnx int8": ["--precision", "int8", "--min-agreement", "0.8"], "ort": [], "openvino": [], "web": [],
           "triton": [], "trt-rtx": ["--allow-unverified-engine"]}  # fmt: skip
QUICK = ("onnx",)
BUNDLE = "bundle"


@dataclass(frozen=True)
class Case:
    """Two bundles that differ, ``old`` and ``new``, and the arguments that make the new one."""

    arguments: tuple[object, ...]
    old: Path
    new: Path
    seconds: float

    def prepare(self, place: Path, *, replace: bool) -> list[object]:
        """Make ``place`` as it is before the export, and return what is exported how."""
        place.mkdir(parents=True)
        if replace:
            shutil.copytree(self.old, place / BUNDLE)
        return [*self.arguments, "-o", place / BUNDLE, *(["--force"] if replace else [])]

    def judge(self, place: Path, *, replace: bool) -> str:
        """What is at ``place`` after the next export has begun: ``old``, ``new`` or ``nothing``; all else is a failure."""
        scratch.sweep(place)
        names = sorted(os.listdir(place))
        if not names and not replace:
            return "nothing"
        assert names == [BUNDLE], names
        artifact.read(place / BUNDLE)
        found = promised(place / BUNDLE)
        for what, bundle in (("old", self.old), ("new", self.new)):
            if found == promised(bundle):
                return what
        raise AssertionError("the bundle is neither the old nor the new one")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two checkpoints of the same shape, and inputs to calibrate with."""
    directory = tmp_path_factory.mktemp("checkpoints")
    for name, seed in (("old.pt", 1), ("new.pt", 2)):
        save_checkpoint(directory / name, small_spec(), seed=seed)
    images = np.random.default_rng(0).standard_normal((64, 3, 20, 28)).astype(np.float32)
    np.save(directory / "calibration.npy", images)
    return directory


@pytest.fixture(scope="module")
def cases(checkpoints: Path) -> dict[str, Case]:
    """What was made once, by format."""
    return {}


@pytest.fixture
def case(request: pytest.FixtureRequest, checkpoints: Path, cases: dict[str, Case]) -> Case:
    """The case of the format that the test asks for."""
    name = request.param
    if name not in cases:
        format, *_ = name.split()
        if format == "trt-rtx":
            pytest.importorskip("tensorrt_rtx")
        options = [*FORMATS[name], *(["--calibration", checkpoints / "calibration.npy"] if "int8" in name else [])]
        made = checkpoints / name.replace(" ", "-")
        seconds = 0.0
        for which in ("old", "new", "new-again"):
            arguments = [checkpoints / f"{which.removesuffix('-again')}.pt", "--format", format, *options]
            running = processes.export(checkpoints / "log", *arguments, "-o", made / which)
            assert running.wait() == 0, running.text
            seconds = time.monotonic() - running.started
        assert promised(made / "new") == promised(made / "new-again")
        cases[name] = Case((checkpoints / "new.pt", "--format", format, *options), made / "old", made / "new", seconds)
    return cases[name]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of a case run for every format, or for a few."""
    if "case" in metafunc.fixturenames:
        thorough = metafunc.config.getoption("--thorough", default=False)
        metafunc.parametrize("case", FORMATS if thorough else QUICK, indirect=True)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A place of its own for temporary files."""
    (tmp_path / "tmp").mkdir()
    return {"TMPDIR": str(tmp_path / "tmp")}


def test_killed_at_random_moments(case: Case, tmp_path: Path, trials: Trials, env: dict[str, str]) -> None:
    """SIGKILL at random moments, in turn with an old bundle in place (`--force`) and with none, for each format."""
    rng = random.Random(1)
    outcomes = []
    for turn in range(trials.times(4, 200)):
        replace = turn % 2 == 0
        place = tmp_path / str(turn)
        running = processes.export(tmp_path / "log", *case.prepare(place, replace=replace), env=env)
        time.sleep(rng.uniform(0, 1.1 * case.seconds))
        running.send(signal.SIGKILL)
        running.wait()
        outcomes.append(case.judge(place, replace=replace))
        trials.tried("exports killed")
        shutil.rmtree(place)
    scratch.sweep(tmp_path / "tmp")
    assert not [name for name in os.listdir(tmp_path / "tmp") if name.startswith(scratch.PREFIX)]
    trials.note(f"{case.new.parent.name}: " + ", ".join(f"{outcomes.count(o)} {o}" for o in ("old", "new", "nothing")))


CALLS = "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,chmod,fchmod,fchmodat,flock"
"""Calls that change what directories hold, or make it last; how often files are written is left to random moments."""


def straced(log: Path, arguments: list[object], env: dict[str, str], *injections: str) -> int:
    """The exit code of ``s2mlp-export ARGUMENTS`` with faults in its system calls; ``log`` gets those of :data:`CALLS`."""
    options = [word for injection in injections for word in ("-e", f"inject={injection}")]
    go = log.with_name("go")
    go.unlink(missing_ok=True)
    running = processes.start("export", log.with_name("said"), *arguments, env=env, before=partial(wait_for, go))
    process = running.process.pid
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(process), "-o", str(log), "-e", f"trace={CALLS}", *options],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tracer.stderr is not None
    attached = tracer.stderr.readline()
    assert "attached" in attached, attached
    go.touch()
    code = running.wait()
    tracer.communicate(timeout=60)
    return code


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


@pytest.fixture
def strace(tmp_path: Path) -> None:
    """Skips where strace is not there or may not trace."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    done = subprocess.run(
        ["strace", "-o", tmp_path / "log", "-e", "trace=rename", "true"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip("strace may not trace here")


def moments(log: Path, place: Path) -> Iterator[tuple[str, int]]:
    """Each traced call from the first at ``place`` on, as (name, how manieth of its name in its process)."""
    counts: dict[tuple[str, str], int] = {}
    begun = False
    for line in log.read_text().splitlines():
        if call := re.match(r"(\d+) +(\w+)\(", line):
            key = call[1], call[2]
            counts[key] = counts.get(key, 0) + 1
            begun = begun or str(place) in line
            if begun:
                yield call[2], counts[key]


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("exchange", [True, False], ids=["one step", "two steps"])
def test_killed_at_every_call_that_publishes(
    case: Case, exchange: bool, tmp_path: Path, trials: Trials, env: dict[str, str]
) -> None:
    """SIGKILL at each system call that makes, renames, removes, locks or flushes a file or directory, with an old bundle in
    place; also on a file system that cannot exchange two names (renameat2 fails)."""
    refuse = [] if exchange else ["renameat2:error=EINVAL"]
    whole = tmp_path / "whole"
    assert straced(tmp_path / "log", case.prepare(whole, replace=True), env, *refuse) == 0
    assert case.judge(whole, replace=True) == "new"
    every = [(name, count) for name, count in moments(tmp_path / "log", whole) if exchange or name != "renameat2"]
    assert {name for name, _ in every} >= {"renameat2" if exchange else "rename", "fsync", "flock"}
    outcomes = []
    for turn, (name, count) in enumerate(every if trials.thorough else every[:: len(every) // 2]):
        place = tmp_path / str(turn)
        arguments = case.prepare(place, replace=True)
        code = straced(tmp_path / "log", arguments, env, *refuse, f"{name}:signal=SIGKILL:when={count}")
        assert code == -signal.SIGKILL, (name, count, code)
        outcomes.append(case.judge(place, replace=True))
        trials.tried("exports killed")
        shutil.rmtree(place)
    if trials.thorough:
        assert {"old", "new"} == set(outcomes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_told_to_stop(case: Case, number: signal.Signals, tmp_path: Path, trials: Trials, env: dict[str, str]) -> None:
    """SIGINT, SIGTERM and SIGHUP at random moments: exit code 130, 143 or 129, one line that says so, and nothing left."""
    rng = random.Random(2)
    slowest = 0.0
    for turn in range(trials.times(2, 30)):
        place = tmp_path / str(turn)
        running = processes.export(tmp_path / "log", *case.prepare(place, replace=True), env=env)
        while "…" not in running.text:
            assert time.monotonic() - running.started < 60
            time.sleep(0.005)
        time.sleep(rng.uniform(0, case.seconds))
        sent = time.monotonic()
        running.send(number)
        code = running.wait(10)
        slowest = max(slowest, time.monotonic() - sent)
        text = running.text
        assert "Traceback" not in text
        if code != 0:  # it had ended by itself
            assert code == 128 + number, text
            assert [line for line in text.splitlines() if line.startswith("error:")] == [
                "error: interrupted; nothing unfinished was published"
            ]
        assert os.listdir(place) == [BUNDLE] and os.listdir(tmp_path / "tmp") == []
        assert case.judge(place, replace=True) in ("old", "new")
        trials.tried("exports stopped")
        shutil.rmtree(place)
    trials.note(f"slowest end {slowest:.1f} s")


def test_two_exports_to_one_place(case: Case, tmp_path: Path, trials: Trials, env: dict[str, str]) -> None:
    """Two exports of different checkpoints to one place at once, started a random moment apart, with `--force` and without; one
    of four is killed on its way."""
    rng = random.Random(4)
    codes: Counter[str] = Counter()
    for turn in range(trials.times(4, 60)):
        replace, kill = turn % 2 == 0, turn % 4 > 1
        place = tmp_path / str(turn)
        arguments = case.prepare(place, replace=replace)
        other = [arguments[0].with_name("old.pt"), *arguments[1:]]  # type: ignore[attr-defined]
        first = processes.export(tmp_path / "first", *arguments, env=env)
        time.sleep(rng.uniform(0, case.seconds / 2))
        second = processes.export(tmp_path / "second", *other, env=env)
        if kill:
            time.sleep(rng.uniform(0, case.seconds / 2))
            first.send(signal.SIGKILL)
        for running in (first, second):
            code = running.wait()
            allowed = {0} | ({-signal.SIGKILL} if kill and running is first else set()) | (set() if replace else {3})
            assert code in allowed and "Traceback" not in running.text, running.text
            if code == 3:
                assert f"{place / BUNDLE} exists" in running.text
            codes[f"{'with' if replace else 'without'} --force: exit code {code}"] += 1
        assert case.judge(place, replace=replace) in ("old", "new")
        trials.tried("pairs of exports")
        shutil.rmtree(place)
    trials.note("; ".join(f"{count} {what}" for what, count in sorted(codes.items())))


def in_native_code(*_: object) -> None:
    """Twenty seconds in which Python handles no signal, as when a runtime compiles."""
    import hashlib

    hashlib.pbkdf2_hmac("sha256", b"", b"", 30_000_000)


def compile_forever() -> None:
    from exporters.onnx_file import OnnxFile

    OnnxFile.export = in_native_code  # type: ignore[method-assign,assignment]


def test_told_to_stop_while_native_code_runs(
    checkpoints: Path, tmp_path: Path, trials: Trials, env: dict[str, str]
) -> None:
    """SIGINT and SIGTERM while native code keeps Python from handling them."""
    for number in itertools.islice(itertools.cycle((signal.SIGINT, signal.SIGTERM)), trials.times(2, 20)):
        (tmp_path / "out").mkdir(exist_ok=True)
        arguments = checkpoints / "new.pt", "-o", tmp_path / "out" / BUNDLE
        running = processes.start("export", tmp_path / "log", *arguments, env=env, before=compile_forever)
        while "writing the onnx artifact" not in running.text:
            assert time.monotonic() - running.started < 60
            time.sleep(0.01)
        time.sleep(0.2)
        sent = time.monotonic()
        running.send(number)
        assert running.wait(15) == 128 + number
        trials.note(f"{number.name} took {time.monotonic() - sent:.1f} s")
        assert running.text.endswith("error: interrupted; nothing unfinished was published\n")
        assert os.listdir(tmp_path / "out") == []
        trials.tried("exports stopped")


def test_told_to_stop_while_it_starts(checkpoints: Path, tmp_path: Path, trials: Trials) -> None:
    """SIGINT and SIGTERM while the command itself is still being loaded, by its entry point."""
    rng = random.Random(3)
    command = Path(sys.executable).with_name("s2mlp-export")
    for turn in range(trials.times(2, 40)):
        number = (signal.SIGINT, signal.SIGTERM)[turn % 2]
        process = subprocess.Popen(
            [sys.executable, "-c", f"import os, signal, sys; signal.signal({int(number)}, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])",
             str(command), str(checkpoints / "new.pt"), "-o", str(tmp_path / BUNDLE)],
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(rng.uniform(0.25, 1.2))
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert process.returncode in (128 + number, -number), (process.returncode, err)
        assert os.listdir(tmp_path) == []
        trials.tried("exports stopped")
