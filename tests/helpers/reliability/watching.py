"""What a command in this process loads, starts and opens, by the word of the interpreter and of the kernel."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

LOADING = (
    ("onnxruntime", "InferenceSession"),
    ("openvino", "Core"),
    ("openvino.frontend", "FrontEndManager"),
    ("ai_edge_litert.interpreter", "Interpreter"),
    ("executorch.extension.pybindings._C", "_load_program"),
    ("tensorrt_rtx", "Runtime"),
    ("tensorrt_rtx", "Builder"),
    ("PIL.Image", "open"),
    ("s2mlp_deploy.bundle.golden_tensors", "load_file"),
)
"""What reads models, golden tensors and images."""

_STARTING = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "socket.connect"}
_started: list[str] | None = None


def _audit(event: str, _: tuple[Any, ...]) -> None:
    if _started is not None and event in _STARTING:
        _started.append(event)


sys.addaudithook(_audit)


@contextmanager
def loads() -> Iterator[list[str]]:
    """The names of what was loaded with, and of processes and connections that were started, in order."""
    global _started
    with ExitStack() as stack:
        done: list[str] = []
        for module, name in LOADING:
            try:
                found = getattr(import_module(module), name)
            except ImportError:
                continue
            stack.enter_context(mock.patch(f"{module}.{name}", _noting(found, f"{module}.{name}", done)))
        _started = done
        try:
            yield done
        finally:
            _started = None


def _noting(function: Callable[..., Any], name: str, done: list[str]) -> Callable[..., Any]:
    def noted(*arguments: Any, **options: Any) -> Any:
        done.append(name)
        return function(*arguments, **options)

    return noted


class Bait:
    """A file that nobody should open, natively or otherwise; the kernel tells."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(1 << 20))
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK)
        opened = 0x20
        assert libc.inotify_add_watch(self._descriptor, os.fsencode(path), opened) >= 0, os.strerror(ctypes.get_errno())

    def taken(self) -> bool:
        """Whether it was opened since this was asked last."""
        try:
            return bool(os.read(self._descriptor, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._descriptor)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """An error where what happens in this takes longer, even where it waits for a file."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
