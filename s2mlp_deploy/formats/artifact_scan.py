"""What looking at an artifact before its runtime does has in common, whatever the format: how it says no."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s2mlp_deploy.errors import BundleError


class Unexpected(Exception):  # noqa: N818 - names what was found
    """Something in a file that no export writes, in words."""


@contextmanager
def inspecting(path: Path, *damage: type[Exception]) -> Iterator[None]:
    """Around a look at ``path``: :class:`Unexpected`, and exceptions of type ``damage``, which readers of such files raise.

    Raises:
        BundleError: with the reason.
    """
    reasons: tuple[type[Exception], ...] = (Unexpected, *damage)
    try:
        yield
    except reasons as error:
        reason = str(error) if isinstance(error, Unexpected) else f"it cannot be read ({error})"
        raise BundleError(
            f"cannot load the model {path}: {reason}. No export writes that: copy the bundle again, from somebody you trust"
        ) from error
