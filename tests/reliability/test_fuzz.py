"""Whatever is in a file, its reader gives a sound result or says what is wrong.

Real files of every kind that is read are changed at random, with their structure in mind (instructions of pickles, values and
keys of JSON, heads of arrays, entries of archives, tokens of TOML) and without (bits, numbers, cuts, moves, pieces of other files).
Each reader has to refuse with an error of its own, without a warning, or to give a result that is sound: finite weights
in the shapes that the architecture has, images in the model's size, one name for each class. Everything else is a failure:
another exception, ten seconds of processor time, memory that grows, a process that dies.

The same numbers give the same files again. A file that fails is kept in `build/fuzz`. Not covered: the runtimes' own readers of
engines and graphs, whose files are held to their SHA-256 before they are opened.
"""

from __future__ import annotations

import faulthandler
import json
import shutil
import signal
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from helpers import processes
from helpers.reliability.confined import confine
from helpers.reliability.growth import Held
from helpers.reliability.readers import READERS, Folders, Reader, _folder, make_seeds
from helpers.reliability.record import Trials
from helpers.support import ROOT
from s2mlp_deploy.errors import Error

KEPT = ROOT / "build" / "fuzz"
SECONDS = 10
MOST_BYTES = 3 << 30
"""Addresses that a process may take above those that it begins with: several times what any file here stands for."""

MOST_GROWTH_MIB = 32, 4
"""What a process may hold more at the end than after a fifth of the files: where few are read, modules are still being loaded.

Of 6,000 files the last 4,800 add 0.1 to 0.8 MiB, whatever their kind; one file of 20 KB in 25 that stayed would be 4 MiB.
"""


class Hang(BaseException):
    """The reader takes too long; not an Exception, so that no reader catches it."""


def _hang(*_: object) -> None:
    raise Hang


def fuzz(kind: str, part: int, count: int, seeds: Path, place: Path) -> None:
    """Read ``count`` files in this process, and write what came of it to ``place``/result.json."""
    confine(MOST_BYTES, 3600, place / "used")
    crash = (place / "crash").open("w")
    faulthandler.enable(crash)
    signal.signal(signal.SIGPROF, _hang)
    warnings.simplefilter("ignore")
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    first = Held.now()
    for number in range(count):
        rng = Random(f"{kind} {part} {number}")
        path, read = _write(kind, rng, seeds, place)
        (place / "current").write_text(f"{number} {path}")
        faulthandler.dump_traceback_later(120, exit=True, file=crash)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                read(path)
            outcomes["read"] += 1
        except Error:
            outcomes["refused"] += 1
        except BaseException:
            signal.setitimer(signal.ITIMER_PROF, 0)
            failures.append(f"{_keep(path, kind, part, number)}:\n{traceback.format_exc()[-3000:]}")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()
        if number == count // 5:
            first = Held.now()
        _remove(path)
    last = Held.now()
    result = {
        "outcomes": outcomes,
        "failures": failures,
        "grown": last.rss_bytes - first.rss_bytes,
        "files": last.open_files - first.open_files,
    }
    (place / "result.json").write_text(json.dumps(result))


def _write(kind: str, rng: Random, seeds: Path, place: Path) -> tuple[Path, Any]:
    """A changed file of that kind, and what reads it."""
    if kind == "folders of images":
        Folders(seeds / "plain.png").write(rng, place / "folder")
        return place / "folder", _folder
    reader: Reader = READERS[kind]
    seed = rng.choice(reader.seeds)
    data = (seeds / seed).read_bytes()
    others = [(seeds / name).read_bytes() for name in reader.seeds]
    path = place / f"input{Path(seed).suffix}"
    path.write_bytes(rng.choice(reader.changes)(rng, data, others))
    return path, reader.read


def _keep(path: Path, kind: str, part: int, number: int) -> Path:
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / f"{kind.replace(' ', '-').replace(chr(39), '')}-{part}-{number}{path.suffix}"
    with suppress(OSError):
        shutil.copytree(path, kept, symlinks=True) if path.is_dir() else shutil.copy(path, kept)
    return kept


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that are changed."""
    place = tmp_path_factory.mktemp("seeds")
    make_seeds(place)
    return place


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("kind", [*READERS, "folders of images"])
def test_changed_files_are_read_soundly_or_refused(
    kind: str, part: int, seeds: Path, tmp_path: Path, trials: Trials
) -> None:
    """Files changed at random, read in a process with limited memory and time."""
    if part and not trials.thorough:
        pytest.skip("the second part is read with --thorough")
    count = trials.times(40, 1_000 if kind == "folders of images" else 6_000)
    process = processes._server.Process(target=fuzz, args=(kind, part, count, seeds, tmp_path))
    process.start()
    process.join()
    if not (tmp_path / "result.json").exists():
        number, path = (tmp_path / "current").read_text().split(" ", 1)
        kept = _keep(Path(path), kind, part, int(number))
        raise AssertionError(
            f"the process ended with {process.exitcode} on {kept}: {(tmp_path / 'crash').read_text()[-3000:]}"
        )
    result = json.loads((tmp_path / "result.json").read_text())
    assert not result["failures"], "\n".join([f"{len(result['failures'])} of {count}", *result["failures"][:5]])
    assert result["grown"] < trials.times(*MOST_GROWTH_MIB) << 20 and result["files"] <= 0, result
    trials.tried(kind, count)
    trials.ended("refused", result["outcomes"].get("refused", 0))
    trials.ended("read, and sound", result["outcomes"].get("read", 0))
