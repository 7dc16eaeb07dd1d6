"""What every command shares: what it says and how it ends.

Results go to stdout, progress and warnings to stderr. An error is one paragraph and an exit code, never a traceback.
"""

from __future__ import annotations

import functools
import gc
import io
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from s2mlp_deploy import interruption
from s2mlp_deploy.errors import Error, RuntimeMissingError
from s2mlp_deploy.packages import pip_install
from s2mlp_deploy.progress import Listener

_err = Console(stderr=True, highlight=False)


class ConsoleListener(Listener):
    """Shows steps that take a while on stderr: a spinner on a terminal, lines elsewhere."""

    def step(self, what: str) -> AbstractContextManager[object]:
        """As :meth:`Listener.step`."""
        if not _err.is_terminal:
            _err.print(f"{what} …", soft_wrap=True)
        return _err.status(what)

    def warn(self, text: str) -> None:
        """As :meth:`Listener.warn`."""
        _say("warning:", "yellow", text)


class torch_needed:  # noqa: N801 - reads as a phrase where it is used
    """Around heavy imports: turns a missing package into an error that says what to install.

    The garbage collector finds nothing in what imports create, and takes a second to find out.
    """

    def __enter__(self) -> None:
        self._first = "torch" not in sys.modules
        if self._first:
            gc.disable()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._first:
            gc.freeze()
            gc.enable()
        if isinstance(error, ModuleNotFoundError):
            raise RuntimeMissingError(
                f"this command needs the package {error.name}, which is not installed: {pip_install('export')}. Checking a bundle with "
                "s2mlp-verify does not need it"
            ) from error


def show(content: RenderableType | dict[str, Any]) -> None:
    """Print a result: a table, or a document as JSON."""
    if isinstance(content, dict):
        sys.stdout.write(json.dumps(plain(content), indent=2, default=str, allow_nan=False) + "\n")
    else:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text
        Console(highlight=False, width=None if sys.stdout.isatty() else 100).print(content)


def plain(value: Any) -> Any:
    """``value`` with null for numbers that are not finite, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def command(function: Callable[..., None]) -> Callable[[], None]:
    """The entry point for ``function``: its errors as one paragraph on stderr and an exit code."""

    @functools.wraps(function)
    def guarded(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
            sys.stdout.flush()
        except Error as error:
            _fail(str(error), error.exit_code)
        except MemoryError:
            _fail("this machine has not enough memory for that: try a smaller --image-size or --batch", 4)
        except KeyboardInterrupt:
            _fail(interruption.MESSAGE, interruption.take())
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that closing stdout does not fail again
            sys.exit(1)
        except OSError as error:
            if not isinstance(error.filename, str | bytes):
                raise
            reason = f"{os.fsdecode(error.filename)}: {error.strerror}"
            _fail(f"{reason}. If something moved or removed it meanwhile, try again", 3)

    def main() -> None:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        app.command()(guarded)
        app(standalone_mode=True)

    return main


def _fail(message: str, code: int) -> None:
    if "--debug" in sys.argv:
        traceback.print_exc()
    _say("error:", "bold red", message)
    sys.exit(code)


def _say(what: str, style: str, message: str) -> None:
    """One paragraph on stderr. Names from files cannot break it up, style it or steer the terminal."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in re.sub(r"\s*\n\s*", " ", message))
    _err.print(Text.assemble((what, style), " ", text), soft_wrap=not _err.is_terminal)
