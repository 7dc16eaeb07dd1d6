"""Stop a run of ONNX Runtime that takes longer than it may."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from s2mlp_deploy.errors import TimeLimitError

if TYPE_CHECKING:
    import onnxruntime

LOOP_SECONDS = 60.0
"""The longest run of a graph with loops, which may be written to run for ever."""


@contextmanager
def stopping_after(seconds: float) -> Iterator[onnxruntime.RunOptions]:
    """Options of a run that ends before its next operator, also within a loop, once ``seconds`` have passed.

    Raises:
        TimeLimitError: where it was ended.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    timer = threading.Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    except Exception as error:
        if not options.terminate:
            raise
        raise TimeLimitError(
            f"the model has loops and ran for {seconds:g} s, when it was stopped: expected loops that end sooner"
        ) from error
    finally:
        timer.cancel()
