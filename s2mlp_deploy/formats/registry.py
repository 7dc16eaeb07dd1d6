"""Formats by name: each is found by the entry point group ``s2mlp_deploy.exporters``, inside or outside this project; its name there
is the ``--format``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.formats.base import Compiler, Exporter, Inspected
from s2mlp_deploy.formats.names import GROUP, ONNX
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.runtime.session import TracingSession
from s2mlp_deploy.system import workdir


def available() -> dict[str, Callable[[], Exporter | Compiler]]:
    """A way to load each exporter and compiler that is installed, by format."""
    return {
        point.name: (lambda p=point: p.load()())  # type: ignore[misc]
        for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)
    }


def find(name: str) -> Exporter | Compiler:
    """The exporter or compiler for format ``name``.

    Raises:
        UsageError: where no installed package offers it.
        RuntimeMissingError: where the package that offers it cannot be loaded.
    """
    exporters = available()
    if name not in exporters:
        raise UsageError(f"no exporter for format {name!r} is installed: there are {', '.join(exporters) or 'none'}")
    try:
        return exporters[name]()
    except (ImportError, AttributeError) as error:
        raise RuntimeMissingError(
            f"the exporter for format {name!r} cannot be loaded ({error}): install what it needs, or reinstall it"
        ) from error


@contextmanager
def scratch_session(lowered: Lowered) -> Iterator[TracingSession]:
    """ONNX Runtime on a graph that is not published: where every graph is looked into on its way."""
    target = find(ONNX)
    assert isinstance(target, Exporter)
    with workdir.temporary() as directory:
        session = target.open(target.export(lowered, directory))
        assert isinstance(session, TracingSession)
        yield session


def inspect(bundle: Bundle) -> None:
    """Let the bundle's format look at it: before every first use of a bundle that may come from elsewhere.

    Raises:
        BundleError: as :meth:`Inspected.inspect`.
        UsageError, RuntimeMissingError: as :func:`find`.
    """
    target = find(bundle.manifest.format)
    if isinstance(target, Inspected):
        target.inspect(bundle)
