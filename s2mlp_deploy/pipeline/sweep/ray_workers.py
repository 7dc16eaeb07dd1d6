"""Workers on a Ray cluster: the same task, on any node, tried again where a worker or its node dies.

Nodes read checkpoints and write bundles by path, on storage that all of them share; or files travel through Ray (ray_shipping.py). A bundle is published whole or not at all, so an
item that two nodes make, where one was taken for dead, is there once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Generic

from s2mlp_deploy.errors import Error, RuntimeMissingError, UsageError
from s2mlp_deploy.pipeline.sweep import ray_shipping
from s2mlp_deploy.pipeline.sweep.local_workers import MOST_ATTEMPTS
from s2mlp_deploy.pipeline.sweep.outcome import ERROR, Failure, failure_of
from s2mlp_deploy.pipeline.sweep.ray_shipping import Cargo
from s2mlp_deploy.pipeline.sweep.work import R, Work
from s2mlp_deploy.system import workdir
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_deploy.system.version import __version__

BENCH_SLOT = {"bench_slot": 1.0}
"""A resource of which each node has one: what takes it runs alone of its kind there."""

AHEAD = 2
"""Items for each core that are handed to Ray at a time: its nodes never wait, and the driver holds few."""

ANSWERS_WITHIN_S = 5.0


class RayWorkers(Generic[R]):
    """The cluster at ``address`` (HOST:PORT, or ``auto`` for the one that this machine is of), which does ``task`` for each item and
    writes into ``output``; each takes what it ``needs`` of the nodes' own resources. ``ships`` sends files through Ray, for nodes
    that do not share storage."""

    def __init__(
        self,
        address: str,
        output: Path,
        task: Callable[[Any, Path], R],
        *,
        needs: Mapping[str, float] | None = None,
        ships: bool = False,
    ) -> None:
        self._address, self._output, self._task, self._needs = address, output, task, dict(needs or {})
        self._ships, self._sent = ships, dict[Path, Any]()

    def run(self, items: Iterable[Work[R]]) -> Iterator[R]:
        """The outcomes of ``items``, in the order in which they come.

        Raises:
            RuntimeMissingError: where Ray is not installed, no cluster answers, or its versions are others than here.
        """
        with connected(self._address) as ray:
            resources = ray.cluster_resources()
            if lacking := [name for name in self._needs if not resources.get(name)]:
                raise RuntimeMissingError(
                    f"no node of the Ray cluster at {self._address} has the resource {lacking[0]!r}, which keeps timings apart: start each with "
                    f"`ray start … --resources='{{\"{lacking[0]}\": 1}}'`"
                )
            most = max(1, int(resources.get("CPU", 1))) * AHEAD
            work = ray.remote(max_retries=MOST_ATTEMPTS - 1)(work_on_shipped if self._ships else work_on_node)
            waiting, running = iter(items), dict[Any, Work[R]]()
            while True:
                for item in waiting:
                    options: dict[str, Any] = {
                        "num_cpus": 1,
                        "num_gpus": int(item.on_gpu and resources.get("GPU", 0) > 0),
                    }
                    if self._needs:
                        options["resources"] = self._needs
                    try:
                        running[work.options(**options).remote(*self._arguments(ray, item))] = item
                    except Error as error:  # of a file that cannot be shipped
                        yield item.failed(failure_of(error))
                    if len(running) >= most:
                        break
                if not running:
                    return
                (done,), _ = ray.wait(list(running))
                yield self._outcome(ray, done, running.pop(done))

    def _arguments(self, ray: ModuleType, item: Work[R]) -> tuple[Any, ...]:
        """Those of the function that works on ``item``; files that are shipped go into Ray's store once."""
        if not self._ships:
            return item, self._output.resolve(), __version__, self._task
        for path in item.reads:
            if path not in self._sent:
                self._sent[path] = ray.put(ray_shipping.pack(path))
        return item, __version__, self._task, *(self._sent[path] for path in item.reads)

    def _outcome(self, ray: ModuleType, done: Any, item: Work[R]) -> R:
        try:
            outcome: R
            if not self._ships:
                outcome = ray.get(done)
                return outcome
            outcome, made = ray.get(done)
            if made is not None:
                ray_shipping.publish(made, self._output / item.key)
            return outcome
        except (Error, OSError) as error:  # a full disk, too
            return item.failed(failure_of(error))
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            message = (
                f"its worker or its node died in {MOST_ATTEMPTS} attempts, or the task could not be started: {reason}"
            )
            return item.failed(Failure("WorkerDied", message, ERROR), MOST_ATTEMPTS)


def work_on_node(item: Work[R], output: Path, release: str, task: Callable[[Any, Path], R]) -> R:
    """Do ``task`` for ``item`` on this node, which must have the driver's ``release`` and see its storage."""
    node = socket.gethostname()
    if release != __version__:
        message = f"the node {node} has s2mlp-deploy {__version__}, and the sweep was started with {release}: install that there"
        return item.failed(Failure(RuntimeMissingError.__name__, message, RuntimeMissingError.exit_code))
    if unseen := [path for path in (*item.reads, output) if not path.exists()]:
        message = f"the node {node} does not see {unseen[0]}: mount the same storage at the same place on all nodes, or pass --ship"
        return item.failed(Failure(UsageError.__name__, message, UsageError.exit_code))
    return task(item, output)


def work_on_shipped(
    item: Work[R], release: str, task: Callable[[Any, Path], R], *sent: Cargo
) -> tuple[R, Cargo | None]:
    """Do ``task`` for ``item`` on this node with the files that were ``sent``, those of ``item.reads`` in order; the bundle that was
    made is sent back."""
    try:
        places = {path: ray_shipping.receive(cargo) for path, cargo in zip(item.reads, sent, strict=True)}
        with workdir.temporary() as output:
            outcome = work_on_node(item.moved(places), output, release, task)
            made = output / item.key
            return outcome, ray_shipping.pack(made) if made.exists() else None
    except (Error, OSError) as error:
        return item.failed(failure_of(error)), None


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected to the cluster at ``address`` inside ``with``.

    Raises:
        RuntimeMissingError: as :meth:`RayWorkers.run`.
        UsageError: where ``address`` is none.
    """
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise RuntimeMissingError(f"--ray needs the package ray ({error}): {pip_install('ray')}") from error
    _probe(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise RuntimeMissingError(
            f"the Ray cluster at {address} has other versions than this machine: {reason}. Install the same Ray and Python on both"
        ) from error
    except (ConnectionError, ValueError) as error:
        raise RuntimeMissingError(_nobody(address, error)) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Refuse an address at which nothing answers: Ray itself tries for half a minute, and prints."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit()):
        raise UsageError(f"--ray {address!r}: expected HOST:PORT, as `ray status` shows it, or auto")
    try:
        socket.create_connection((host, int(port)), ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise RuntimeMissingError(_nobody(address, error)) from error


def _nobody(address: str, error: Exception) -> str:
    reason = error.strerror or error if isinstance(error, OSError) else error
    return f"no Ray cluster answers at {address} ({reason}): start one with `ray start --head`, and give its address to --ray"
