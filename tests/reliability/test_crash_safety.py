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
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import processes
from helpers.reliability.record import Trials
from helpers.reliability.replacing import BUNDLE, Case
from helpers.reliability.system_calls import moments, straced
from s2mlp_deploy.system import workdir

AFTER = {"old": "the old bundle there", "new": "the new bundle there", "nothing": "no bundle there, as before"}


def test_killed_at_random_moments(case: Case, tmp_path: Path, trials: Trials, env: dict[str, str]) -> None:
    """SIGKILL at random moments, in turn with an old bundle in place (`--force`) and with none, for each format."""
    rng = random.Random(1)
    for turn in range(trials.times(4, 200)):
        replace = turn % 2 == 0
        place = tmp_path / str(turn)
        running = processes.export(tmp_path / "log", *case.prepare(place, replace=replace), env=env)
        time.sleep(rng.uniform(0, 1.1 * case.seconds))
        running.send(signal.SIGKILL)
        running.wait()
        trials.ended(f"with {AFTER[case.judge(place, replace=replace)]}")
        trials.tried(f"exports killed ({case.new.parent.name})")
        shutil.rmtree(place)
    workdir.sweep(tmp_path / "tmp")
    assert not [name for name in os.listdir(tmp_path / "tmp") if name.startswith(workdir.PREFIX)]


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("exchange", [True, False], ids=["one step", "two steps"])
def test_killed_at_every_call_that_publishes(
    case: Case, exchange: bool, tmp_path: Path, trials: Trials, env: dict[str, str]
) -> None:
    """SIGKILL at each system call that makes, renames, removes, locks or flushes a file or directory, with an old bundle in
    place; also on a file system that cannot exchange two names (renameat2 fails)."""
    refuse = [] if exchange else ["renameat2:error=EINVAL"]
    whole = tmp_path / "whole"
    assert straced(tmp_path / "log", case.prepare(whole, replace=True), env, *refuse).code == 0
    assert case.judge(whole, replace=True) == "new"
    every = [(name, count) for name, count in moments(tmp_path / "log", whole) if exchange or name != "renameat2"]
    assert {name for name, _ in every} >= {"renameat2" if exchange else "rename", "fsync", "flock"}
    outcomes = []
    for turn, (name, count) in enumerate(every if trials.thorough else every[:: len(every) // 2]):
        place = tmp_path / str(turn)
        arguments = case.prepare(place, replace=True)
        killed = straced(tmp_path / "log", arguments, env, *refuse, f"{name}:signal=SIGKILL:when={count}")
        assert killed.code == -signal.SIGKILL, (name, count, killed)
        outcomes.append(case.judge(place, replace=True))
        trials.ended(f"with {AFTER[outcomes[-1]]}")
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
            assert time.monotonic() - running.started < 600
            time.sleep(0.005)
        time.sleep(rng.uniform(0, case.seconds))
        sent = time.monotonic()
        running.send(number)
        code = running.wait()
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
    trials.most("slowest", slowest, f"{slowest:.1f} s")


def test_two_exports_to_one_place(case: Case, tmp_path: Path, trials: Trials, env: dict[str, str]) -> None:
    """Two exports of different checkpoints to one place at once, started a random moment apart, with `--force` and without; one
    of four is killed on its way."""
    rng = random.Random(4)
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
            ended = "killed" if code < 0 else f"with exit code {code}"
            trials.ended(f"{ended}, {'with' if replace else 'without'} --force")
        assert case.judge(place, replace=replace) in ("old", "new")
        trials.tried("pairs of exports")
        shutil.rmtree(place)


def in_native_code(*_: object) -> None:
    """Minutes in which Python handles no signal, as when a runtime compiles."""
    import hashlib

    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)


def compile_forever() -> None:
    from s2mlp_deploy.formats.onnx import OnnxFile

    OnnxFile.export = in_native_code  # type: ignore[method-assign,assignment]


def test_told_to_stop_while_native_code_runs(
    checkpoints: Path, tmp_path: Path, trials: Trials, env: dict[str, str]
) -> None:
    """SIGINT and SIGTERM while native code keeps Python from handling them."""
    slowest = 0.0
    for number in itertools.islice(itertools.cycle((signal.SIGINT, signal.SIGTERM)), trials.times(2, 20)):
        (tmp_path / "out").mkdir(exist_ok=True)
        arguments = checkpoints / "new.pt", "-o", tmp_path / "out" / BUNDLE
        running = processes.start("export", tmp_path / "log", *arguments, env=env, before=compile_forever)
        while "writing the onnx artifact" not in running.text:
            assert time.monotonic() - running.started < 600
            time.sleep(0.01)
        time.sleep(0.2)
        sent = time.monotonic()
        running.send(number)
        assert running.wait() == 128 + number
        slowest = max(slowest, time.monotonic() - sent)
        assert running.text.endswith("error: interrupted; nothing unfinished was published\n")
        assert os.listdir(tmp_path / "out") == []
        trials.tried("exports stopped")
    trials.most("slowest", slowest, f"{slowest:.1f} s")


def test_told_to_stop_while_it_starts(checkpoints: Path, tmp_path: Path, trials: Trials) -> None:
    """SIGINT and SIGTERM while the command itself is still being loaded, by its entry point."""
    rng = random.Random(3)
    command = Path(sys.executable).with_name("s2mlp-export")
    for turn in range(trials.times(2, 40)):
        number = (signal.SIGINT, signal.SIGTERM)[turn % 2]
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import os, signal, sys; signal.signal({int(number)}, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])",
                str(command),
                str(checkpoints / "new.pt"),
                "-o",
                str(tmp_path / BUNDLE),
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(rng.uniform(0.25, 1.2))
        process.send_signal(number)
        _, err = process.communicate(timeout=600)
        if err.startswith("Fatal Python error: init_"):  # on a busy machine Python itself may still be starting
            assert os.listdir(tmp_path) == []
            continue
        assert process.returncode in (128 + number, -number), (process.returncode, err)
        assert process.returncode < 0 or err.endswith("error: interrupted; nothing unfinished was published\n"), err
        assert os.listdir(tmp_path) == []
        trials.tried("exports stopped")
