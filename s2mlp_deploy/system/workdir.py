"""Create hidden scratch directories, and remove them afterwards, even after a crash.

A process that is killed cannot clean up. So a scratch directory holds a lock, which the system takes back when its
process ends, however it ends; and before a new one is made, those beside it that nobody holds are removed. Where locks
cannot be had (Windows, some network file systems), a process removes only the directories that it made itself.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from s2mlp_deploy.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX = ".s2mlp-"
LOCK, WORK, OLD, NAME = "lock", "work", "old", "name"
"""The entries of a scratch directory: its lock, the directory to work in, and while a bundle is replaced in two steps,
the old one and the name it had."""

_mine: dict[Path, list[Path]] = {}
"""The scratch directories of this process, and the directories above each that were made for it."""

publishing = threading.Lock()
"""Held while the content of a scratch directory is given its name: it must not be removed then."""


@contextmanager
def beside(destination: Path, option: str = "-o") -> Iterator[Path]:
    """An empty directory on the file system of ``destination``, named by ``option``; gone afterwards, whatever happens.

    Raises:
        OutputError: where it cannot be made.
    """
    try:
        missing = [p for p in destination.parents if not p.exists()]
    except OSError as error:
        raise _cannot_write(destination.parent, error, option) from error
    with _within(destination.parent, option, missing) as directory:
        yield directory


@contextmanager
def temporary() -> Iterator[Path]:
    """An empty directory where the system keeps temporary files; gone afterwards, whatever happens.

    Raises:
        OutputError: where it cannot be made.
    """
    with _within(Path(tempfile.gettempdir()), "the variable TMPDIR", []) as directory:
        yield directory


@contextmanager
def _within(place: Path, option: str, parents: list[Path]) -> Iterator[Path]:
    # The name is short, whatever the destination's, to stay below the file system's limit. It is known before anything
    # is made, so that an interruption leaves nothing.
    directory = place / f"{PREFIX}{secrets.token_hex(8)}"
    lock = None
    _mine[directory] = parents
    try:
        try:
            if parents:
                place.mkdir(parents=True, exist_ok=True)
            sweep(place)
            lock = _make(directory)
        except OSError as error:
            raise _cannot_write(place, error, option) from error
        yield directory / WORK
    finally:
        _remove(directory)
        if lock is not None:
            os.close(lock)


def _cannot_write(place: Path, error: OSError, option: str) -> OutputError:
    return OutputError(f"cannot write to {place}: {error.strerror}. Choose {another_place(option)}")


def another_place(option: str) -> str:
    """The remedy where a place cannot be written."""
    return f"another place with {option}" if option else "another place"


def sweep(place: Path) -> None:
    """Remove scratch directories of killed processes in ``place``, and restore an old bundle that was moved aside."""
    if fcntl is None:
        return
    with suppress(OSError):
        for directory in place.glob(PREFIX + "*"):
            with suppress(OSError):
                _sweep(directory)


def clear() -> None:
    """Remove all scratch directories of this process, for example after an interruption of their own removal."""
    for directory in list(_mine):
        _remove(directory)


def abandon() -> None:
    """Remove them in a process that is about to end, whatever its other threads do, but not during a publication."""
    if publishing.acquire(blocking=False):
        clear()


def step_aside(scratch: Path, destination: Path) -> Path:
    """The place to move ``destination`` aside to; if this process is killed, the next :func:`sweep` moves it back."""
    directory = scratch.parent
    (directory / NAME).write_bytes(os.fsencode(destination.name))
    return directory / OLD


def _make(directory: Path) -> int:
    """Make a scratch directory; returns the descriptor that holds its lock."""
    while True:
        directory.mkdir(0o700)
        with suppress(FileNotFoundError):  # another process swept it away between two of these lines
            lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if not _lock(lock, wait=True) and fcntl is not None:
                    (directory / LOCK).unlink()  # a process that can take locks here would take this one for abandoned
                (directory / WORK).mkdir()
            except BaseException:
                os.close(lock)
                raise
            return lock


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Whether the lock was acquired; some file systems have no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _sweep(directory: Path) -> None:
    status = directory.lstat()
    if not directory.is_dir() or directory.is_symlink() or status.st_uid != os.geteuid():
        return
    try:
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        directory.rmdir()  # killed before it had a lock; fails where there is something in it
        return
    try:
        if _lock(lock, wait=False):
            _remove(directory)
    finally:
        os.close(lock)


def _remove(directory: Path) -> None:
    """Remove a scratch directory; an old bundle that has stepped aside goes back to its name first.

    A directory that cannot be removed now keeps its lock, by which a later :func:`sweep` recognises it.
    """
    with suppress(OSError):
        _give_back(directory)
        for name in (WORK, OLD):
            if (directory / name).exists():
                shutil.rmtree(directory / name)
        (directory / NAME).unlink(missing_ok=True)
        (directory / LOCK).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            directory.rmdir()
        for parent in _mine.get(directory, ()):
            parent.rmdir()  # only those that stayed empty can be removed
    _mine.pop(directory, None)


def _give_back(directory: Path) -> None:
    if (directory / OLD).exists():
        name = os.fsdecode((directory / NAME).read_bytes())
        if Path(name).name == name and not os.path.lexists(directory.parent / name):
            (directory / OLD).rename(directory.parent / name)
