"""End a command within two seconds of a signal: Ctrl-C, ``kill``, a terminal that closes.

A signal becomes :class:`Interrupted`, so that everything on the way cleans up after itself. But Python handles a signal only
between two of its own instructions, and a runtime that compiles a model can keep it from them for minutes. So a thread receives
every signal, too, and ends the process where the exception has not been handled after a while.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from s2mlp_deploy.system import workdir

GRACE_S = 1.5
"""The time in which the exception must reach its handler."""

MESSAGE = "interrupted; nothing unfinished was published"

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

_taken = threading.Event()
_last = int(signal.SIGINT)
_on_its_way = False


class Interrupted(KeyboardInterrupt):
    """A signal that ends this process."""


def take() -> int:
    """Record that the interruption has reached its handler, and return the exit code: 130, or 143 for SIGTERM."""
    global _on_its_way
    _on_its_way = False
    _taken.set()
    return 128 + _last


@contextmanager
def prompt() -> Iterator[None]:
    """End the command inside ``with``, in the main thread, within two seconds of a signal.

    Signals that are ignored (``nohup``, jobs in the background) or already handled elsewhere stay so.
    """
    mine = [number for number in SIGNALS if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)]
    if threading.current_thread() is not threading.main_thread() or not mine:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.signal(number, _raise) for number in mine}
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), name="s2mlp-signals", daemon=True).start()
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and not _on_its_way:
            raise
        code = take()  # it came before or after the command itself, and Typer makes a plain exit of it
        with suppress(OSError):
            os.write(2, f"error: {MESSAGE}\n".encode())
        sys.exit(code)
    finally:
        workdir.clear()
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)


def _raise(number: int, frame: FrameType | None) -> None:
    global _last, _on_its_way
    _last, _on_its_way = number, True
    raise Interrupted


def _watch(reading: int) -> None:
    """Wait for signals; the end of the pipe is the end of the command."""
    while number := os.read(reading, 1):
        if number[0] in SIGNALS and signal.getsignal(number[0]) is _raise:
            _taken.clear()
            if not _taken.wait(GRACE_S):
                workdir.abandon()
                with suppress(OSError):
                    os.write(2, f"error: {MESSAGE}\n".encode())
                os._exit(128 + number[0])
    os.close(reading)


def entered(module: str, function: str, summary: str) -> Callable[[], None]:
    """An entry point that can be interrupted from its first moment on, while it is still being imported; ``summary`` is its docstring.

    Threads of OpenMP, of which PyTorch has some, sleep while they wait for one another. By default they wait busily: where others work
    on the same cores an export took seven times as long, and whatever a benchmark timed meanwhile ran at their cost.
    """

    def main() -> None:
        from importlib import import_module

        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when the library is loaded

        with prompt():
            getattr(import_module(module), function)()

    main.__doc__ = summary
    return main
