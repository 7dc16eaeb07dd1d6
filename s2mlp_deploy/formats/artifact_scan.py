"""Turn the findings of any format's artifact inspection into one refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s2mlp_deploy.errors import BundleError


class Unexpected(Exception):  # noqa: N818 - named after the finding
    """Content of a file that no export writes; the message describes it."""


@contextmanager
def inspecting(path: Path, *damage: type[Exception]) -> Iterator[None]:
    """Turn :class:`Unexpected` and the readers' ``damage`` exceptions into a refusal of ``path``.

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
