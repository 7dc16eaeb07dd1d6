"""A disk that is full, read-only or failing costs nothing but the export.

Every failure to write ends the export with exit code 3 and one paragraph that names the place and the reason; what was there
before stays as it was, and nothing half-written is left. Names of checkpoints and bundles may be anything that a file can be
called.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from helpers import processes
from helpers.reliability.record import Trials
from helpers.reliability.replacing import BUNDLE, Case
from helpers.reliability.system_calls import moments, straced
from helpers.support import Ran


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes disks of so many bytes, one at a time."""
    place = tmp_path / "disk"
    place.mkdir()

    def make(size: int) -> Path:
        while os.path.ismount(place):
            subprocess.run(["umount", place], check=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        return place

    yield make
    while os.path.ismount(place):
        subprocess.run(["umount", place], check=True)


def check_refusal(ran: Ran, *reasons: str) -> None:
    """That the export ended as it should: one paragraph that says why, and no traceback."""
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert ran.code == 3 and "Traceback" not in ran.err, ran
    assert len(errors) == 1 and any(reason in errors[0] for reason in reasons), ran.err


def test_a_full_disk(
    case: Case, disk: Callable[[int], Path], tmp_path: Path, trials: Trials, env: dict[str, str]
) -> None:
    """The disk has room for a random part of the bundle, from none to nearly all, beside an old one or not."""
    rng = random.Random(5)
    page = os.sysconf("SC_PAGE_SIZE")
    needed = sum(-(-file.stat().st_size // page) * page for file in case.new.rglob("*") if file.is_file())
    for turn in range(trials.times(4, 40)):
        replace = turn % 2 == 0
        place = disk(page + needed * replace + int(rng.uniform(0, 0.9) * needed)) / "place"
        arguments = case.prepare(place, replace=replace)
        running = processes.export(tmp_path / "log", *arguments, env=env)
        code = running.wait()
        check_refusal(Ran(code, "", running.text), "No space left on device", "MB free")
        assert sorted(os.listdir(place)) == [BUNDLE] * replace
        assert case.judge(place, replace=replace) == ("old" if replace else "nothing")
        trials.tried("exports without enough room")


def limited(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_limit_on_files(case: Case, tmp_path: Path, trials: Trials, env: dict[str, str]) -> None:
    """No file may be larger than a random part of the largest (RLIMIT_FSIZE), as where a quota ends."""
    rng = random.Random(6)
    largest = max(f.stat().st_size for f in case.new.rglob("*"))
    for turn in range(trials.times(2, 20)):
        place = tmp_path / str(turn)
        before = partial(limited, int(rng.uniform(0.02, 0.98) * largest))
        running = processes.start(
            "export", tmp_path / "log", *case.prepare(place, replace=True), env=env, before=before
        )
        code = running.wait()
        check_refusal(Ran(code, "", running.text), "File too large")
        assert os.listdir(place) == [BUNDLE] and case.judge(place, replace=True) == "old"
        trials.tried("exports with too small files")
        shutil.rmtree(place)


ERRORS = {
    "mkdir": ["ENOSPC", "EDQUOT", "EROFS", "EACCES"],
    "fsync": ["EIO", "ENOSPC", "EDQUOT"],
    "rename": ["EXDEV", "EBUSY", "EIO", "ESTALE", "EACCES"],
    "renameat2": ["EXDEV", "EBUSY", "EIO", "ESTALE", "ENOSYS", "EINVAL"],
    "unlink": ["EBUSY", "EIO", "ESTALE"],
    "unlinkat": ["EBUSY", "EIO"],
    "rmdir": ["ENOTEMPTY", "EBUSY", "EIO"],
    "chmod": ["EPERM", "EIO"],
    "fchmodat": ["EPERM", "EIO"],
    "flock": ["ENOLCK", "EBADF"],
}
"""What calls can fail with, on local disks and on network file systems."""


@pytest.mark.usefixtures("strace")
@pytest.mark.few_formats
@pytest.mark.parametrize("exchange", [True, False], ids=["one step", "two steps"])
def test_calls_that_fail(case: Case, exchange: bool, tmp_path: Path, trials: Trials, env: dict[str, str]) -> None:
    """Each system call that makes, renames, removes, locks or flushes fails with each error that file systems give, NFS's among
    them, with an old bundle in place; also where two names cannot be exchanged."""
    refuse = [] if exchange else ["renameat2:error=EINVAL"]
    whole = tmp_path / "whole"
    assert straced(tmp_path / "log", case.prepare(whole, replace=True), env, *refuse).code == 0
    every = [
        (name, count, error)
        for name, count in moments(tmp_path / "log", whole)
        if exchange or name != "renameat2"
        for error in ERRORS.get(name, [])
    ]
    for turn, (name, count, error) in enumerate(every if trials.thorough else every[:: len(every) // 3]):
        place = tmp_path / str(turn)
        arguments = case.prepare(place, replace=True)
        ran = straced(tmp_path / "log", arguments, env, *refuse, f"{name}:error={error}:when={count}")
        assert "Traceback" not in ran.err, (name, count, error, ran.err)
        if ran.code:
            check_refusal(ran, os.strerror(getattr(errno, error)))
        found = case.judge(place, replace=True)
        assert found == ("old" if ran.code else "new"), (name, count, error, ran)
        trials.ended(f"with exit code {ran.code} and the {found} bundle there")
        trials.tried("calls failed")
        shutil.rmtree(place)


def test_the_directory_vanishes(case: Case, tmp_path: Path, trials: Trials, env: dict[str, str]) -> None:
    """The directory that the bundle is to appear in is removed at a random moment, with everything in it."""
    rng = random.Random(7)
    for turn in range(trials.times(3, 40)):
        place = tmp_path / str(turn)
        running = processes.export(tmp_path / "log", *case.prepare(place, replace=False), env=env)
        time.sleep(rng.uniform(0, case.seconds))
        place.rename(tmp_path / f"removed-{turn}")  # which is one step, and removing all one by one is not
        shutil.rmtree(tmp_path / f"removed-{turn}", ignore_errors=True)
        code = running.wait()
        if code:
            check_refusal(Ran(code, "", running.text), str(place))
        if place.exists():
            assert case.judge(place, replace=False) in ("new", "nothing")
        trials.ended(f"with exit code {code}")
        trials.tried("directories removed")
        shutil.rmtree(place, ignore_errors=True)


def without_privileges() -> None:
    """Let this process do with files only what their modes allow, as other users (capabilities(7)); it stays root."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    overriding = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for effective_or_permitted in (0, 1):
        sets[effective_or_permitted] &= ~overriding
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


@pytest.mark.few_formats
def test_no_permission(case: Case, tmp_path: Path, trials: Trials, env: dict[str, str]) -> None:
    """The user may read the directory, or an old bundle in it, but not write."""
    for place, replace in ((tmp_path / "plain", False), (tmp_path / "force", True), (tmp_path / "a" / "b", False)):
        arguments = case.prepare(place, replace=replace)
        place.chmod(0o555)
        running = processes.start("export", tmp_path / "log", *arguments, env=env, before=without_privileges)
        code = running.wait()
        place.chmod(0o755)
        check_refusal(Ran(code, "", running.text), "Permission denied")
        assert case.judge(place, replace=replace) == ("old" if replace else "nothing")
        trials.tried("exports without permission")


@pytest.mark.few_formats
@pytest.mark.parametrize("what", ["checkpoint", "bundle"])
def test_a_source_that_may_not_be_read(
    case: Case, what: str, tmp_path: Path, trials: Trials, env: dict[str, str]
) -> None:
    """The checkpoint, or the bundle to compile, is a file that the user may not read, or lies where the user may not look."""
    (tmp_path / "out").mkdir()
    place = tmp_path / "source"
    place.mkdir()
    source = place / "x"
    shutil.copyfile(str(case.arguments[0]), source) if what == "checkpoint" else shutil.copytree(case.new, source)
    for hidden in (source, place):
        hidden.chmod(0)
        for command in ("export", "inspect") if what == "checkpoint" else ("export", "verify", "bench"):
            options = ["--format", "ort", "-o", tmp_path / "out" / BUNDLE] if command == "export" else []
            running = processes.start(command, tmp_path / "log", source, *options, env=env, before=without_privileges)
            code = running.wait()
            check_refusal(Ran(code, "", running.text), "Permission denied")
            trials.tried("commands")
    place.chmod(0o755)
    source.chmod(0o755)
    assert os.listdir(tmp_path / "out") == []


NAMES = {
    "spaces": "my model, v 2",
    "scripts": "модель-模型-é",
    "marks": "[red]%s{0}$HOME'\"",
    "longest": "n" * 250,
    "dash": "-v",
    "line": "a\nb",
    "url": "a#b?c=d&e",
    "backslash": "a\\b",
    "emoji": "🦊",
}


def test_any_name(case: Case, tmp_path: Path, trials: Trials, env: dict[str, str]) -> None:
    """Directories, checkpoints and bundles with spaces, scripts, quotes, line breaks, or 250 bytes: exported and verified."""
    if case.new.parent.name == "trt-rtx":
        pytest.skip("its engines cannot be verified without a GPU")
    names = list(NAMES.values())
    for name in names if trials.thorough else names[:3]:
        place = tmp_path / name
        place.mkdir()
        checkpoint, *options = case.arguments
        source = shutil.copyfile(str(checkpoint), place / (name + ".pt"))
        running = processes.export(tmp_path / "log", source, *options, "-o", place / name, env=env)
        assert running.wait() == 0, running.text
        running = processes.start("verify", tmp_path / "log", place / name, env=env)
        assert running.wait() == 0, running.text
        trials.tried("names")
        shutil.rmtree(place)


@pytest.mark.few_formats
def test_names_that_are_no_text(case: Case, tmp_path: Path, trials: Trials, env: dict[str, str]) -> None:
    """Names whose bytes are no text in UTF-8: checkpoints are exported from there; bundles are neither written nor read
    there, since runtimes open no such files."""
    place = tmp_path / os.fsdecode(b"not \xff text")
    place.mkdir()
    checkpoint, *options = case.arguments
    for name in ("new.pt", os.fsdecode(b"\xfe.pt")):
        source = shutil.copyfile(str(checkpoint), place / name)
        running = processes.export(tmp_path / "log", source, *options, "-o", tmp_path / BUNDLE, env=env)
        assert running.wait() == 0, running.text
        shutil.rmtree(tmp_path / BUNDLE)
        trials.tried("checkpoints")
    shutil.copytree(case.new, place / BUNDLE)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for command, *arguments in (
        ("export", checkpoint, *options, "-o", place / "other"),
        ("export", checkpoint, *options, "-o", place / BUNDLE, "--force"),
        ("export", place / BUNDLE, "--format", "ort", "-o", tmp_path / "other"),
        ("verify", place / BUNDLE),
        ("bench", place / BUNDLE),
    ):
        running = processes.start(command, tmp_path / "log", *arguments, env=env)
        check_refusal(Ran(running.wait(), "", running.text), "its path is no text in UTF-8")
        trials.tried("refusals")
    assert before == {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert not (tmp_path / "other").exists()
