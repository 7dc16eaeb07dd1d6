"""Make the export of one work item, in whichever process this is called."""

from __future__ import annotations

import os
from pathlib import Path

from s2mlp_deploy.bundle.contents import MANIFEST
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.sweep.item import Item
from s2mlp_deploy.pipeline.sweep.outcome import Outcome, failed, failure_of, published
from s2mlp_deploy.pipeline.sweep.plan import in_plan
from s2mlp_deploy.system.progress import Listener


class _Warnings(Listener):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(in_plan(text))


def make(item: Item, output: Path) -> Outcome:
    """Publish the bundle of ``item`` in ``output``, under its key, and return the outcome; nothing is raised.

    A bundle is published whole or not at all, so one that is there is done.
    """
    listener = _Warnings()
    try:
        return known(item, output) or _made(item, output, listener)
    except Exception as error:  # of a runtime, or of a format from elsewhere, too: the other items go on
        return failed(item, failure_of(error), warnings=tuple(listener.texts))


def known(item: Item, output: Path) -> Outcome | None:
    """The outcome of ``item`` where its bundle is in ``output`` already.

    Raises:
        BundleError: where the bundle's manifest is damaged.
    """
    directory = output / item.key
    return published(item, directory, "there") if os.path.exists(directory / MANIFEST) else None


def _made(item: Item, output: Path, listener: _Warnings) -> Outcome:
    destination = output / item.key
    try:
        deploy(item.request(destination), listener)
    except OutputError:
        if done := known(item, output):  # another worker, taken for dead, was faster
            return done
        raise
    return published(item, destination, "made", tuple(listener.texts))
