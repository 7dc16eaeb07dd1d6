"""Measuring how an S²-MLP grows, and an MLP-Mixer of its form beside it.

    graphs ─▶ memory, each point in a process of its own ─▶ load, and check answers ─▶ rounds

The S²-MLP is one file, as ``s2mlp-export --dynamic-size --batch dynamic`` writes it, that serves every size and batch with
the checkpoint's own weights; a file with fewer blocks keeps the first ones of each stage. An MLP-Mixer's token-mixing
weights are for one image size, so that each size is a file of its own, with weights of its own, which are random.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from s2mlp_bench import graphs
from s2mlp_bench.baselines import mixer
from s2mlp_deploy.errors import LoweringError, OutputError, ParityError, UsageError
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, only_s2mlp
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.graph import spatial_shift as lowerings
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import Lowering
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.runtime.onnxruntime import RESTING, Loading, OnnxSession
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.system import memory
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Clock, interleave, timed_ms
from s2mlp_deploy.system.wording import counted
from s2mlp_deploy.system.workdir import temporary
from s2mlp_studies.scale import footprint
from s2mlp_studies.scale.footprint import Footprint
from s2mlp_studies.scale.scaling import LONG_MS, MIXER, S2MLP, Plan, Point, Scaling, Setting, shortened

if TYPE_CHECKING:  # needs torch
    from s2mlp_deploy.checkpoint.load import Checkpoint

Key: TypeAlias = tuple[str, Setting]
"""A model and what it is measured at."""

WARMUP = 2
"""Rounds that are dropped: in the first, memory is allocated, and by the second it is planned."""

AGREEMENT = 1e-4
"""Relative L2 distance from PyTorch's logits beyond which a graph is wrong; rounding stays a hundredfold below."""


def measure(source: Checkpoint, plan: Plan, listener: Listener, clock: Clock = time.perf_counter) -> Scaling:
    """Measure the checkpoint as planned.

    Raises:
        SpecError: where an image size is no multiple of the patch.
        UsageError: where the checkpoint is not an S²-MLP's, this machine has too little memory, or no single file can serve every size.
        ParityError: where a graph does not compute what PyTorch does.
        BundleError: where a point cannot run in a process of its own.
        OutputError: where the graphs cannot be written.
    """
    spec = only_s2mlp(source.spec, "its costs are compared with those of an MLP-Mixer of its form")
    plan = _distinct(spec, plan)
    for size in plan.sizes:
        spec.map_sizes(size)
    lowering = _lowering(spec)
    networks = _networks(spec, plan)
    _check_memory(networks, plan, memory.available_bytes())
    rng = np.random.default_rng(plan.seed)
    images = {s: rng.standard_normal((s.batch, spec.in_channels, *s.size), np.float32) for s in plan.settings}
    sessions: dict[Key, OnnxSession] = {}
    footprints: dict[Key, Footprint] = {}
    with temporary() as directory:
        for network in networks:
            with listener.step(f"writing the graph: {network.words}"):
                path = _write(network, source, lowering, directory / "graph", plan.seed)
            for setting in network.settings:
                with listener.step(f"measuring memory in a process of its own: {network.words}, {_words(setting)}"):
                    taken = footprint.take(path, images[setting].shape, threads=plan.threads, scratch=directory)
                footprints[network.model, setting] = taken
            session = OnnxSession(path, Loading(threads=plan.threads, config=RESTING))
            shutil.rmtree(path.parent)
            with listener.step(f"checking answers: {network.words}"):
                _check_answers(network, source, session, {s: images[s][:1] for s in network.settings})
            sessions |= dict.fromkeys(((network.model, setting) for setting in network.settings), session)
    samples = take_rounds(
        {k: timed_ms(partial(s.run, images[k[1]]), clock) for k, s in sessions.items()}, plan, listener, clock
    )
    points = tuple(
        _point(network, setting, footprints[network.model, setting], samples[network.model, setting])
        for network in networks
        for setting in network.settings
    )
    return Scaling(spec, plan, lowering.name, points, mixer.refusal(spec))


@dataclass(frozen=True)
class _Network:
    """One file, and the settings that it runs at. ``size`` is None where it serves every one."""

    model: str
    spec: S2MLPSpec
    size: Size | None
    settings: tuple[Setting, ...]

    @property
    def parameters(self) -> int:
        return self.spec.parameters() if self.size is None else mixer.like(self.spec, self.size).parameters()

    @property
    def words(self) -> str:
        blocks = f"{self.model}, {counted(self.spec.depth, 'block')}"
        return blocks if self.size is None else f"{blocks} for {format_size(self.size)}"


def _distinct(spec: S2MLPSpec, plan: Plan) -> Plan:
    """Of shares that leave equally many blocks, one."""
    by_blocks = {shortened(spec, depth).depth: depth for depth in sorted(plan.depths)}
    return replace(plan, depths=tuple(by_blocks.values()))


def _networks(spec: S2MLPSpec, plan: Plan) -> list[_Network]:
    found = []
    for depth in plan.depths:
        short = shortened(spec, depth)
        settings = [setting for setting in plan.settings if setting.depth == depth]
        found.append(_Network(S2MLP, short, None, tuple(settings)))
        if mixer.refusal(spec) is None:
            for size in dict.fromkeys(setting.size for setting in settings):
                found.append(_Network(MIXER, short, size, tuple(s for s in settings if s.size == size)))
    return found


def _check_memory(networks: Sequence[_Network], plan: Plan, available_bytes: int | None) -> None:
    """Every file is loaded at once, with the memory that its largest batch took: refuse what cannot fit."""
    if available_bytes is None:
        return
    needed_bytes = sum(4 * (n.parameters + max(_activations(n.spec, s) for s in n.settings)) for n in networks)
    if needed_bytes > available_bytes:
        largest = max(plan.settings, key=lambda s: _activations(networks[0].spec, s))
        raise UsageError(
            f"{len(networks)} models are timed in turn, and they take at least {needed_bytes / 1e9:.1f} GB together, where this "
            f"machine has {available_bytes / 1e9:.1f} GB left: leave out large sizes ({_words(largest)} takes most), or some "
            "of --batch or --depth"
        )


def _activations(spec: S2MLPSpec, setting: Setting) -> int:
    """Values that a block holds at once at the least: what it adds to, its hidden layer, and GELU's copy of that."""
    maps = zip(spec.stages, spec.map_sizes(setting.size), strict=True)
    return setting.batch * max(prod(size) * (stage.channels + 2 * stage.hidden) for stage, size in maps)


def _lowering(spec: S2MLPSpec) -> Lowering:
    try:
        return lowerings.choose("auto", spec.shifts, dynamic_size=True)
    except LoweringError as error:
        raise UsageError(
            "no lowering of this shift can serve every image size in one file, which is what is measured. What it costs hardly "
            "depends on it: pass --shift-semantics paper"
        ) from error


def _write(network: _Network, source: Checkpoint, lowering: Lowering, directory: Path, seed: int) -> Path:
    spec = network.spec
    if network.size is None:
        weights = {name: source.weights[name].numpy() for name in spec.parameter_shapes()}
        lowered = lower(spec, weights, lowering, Axes(None, None))
    else:
        lowered = mixer.lower(spec, Axes(None, network.size), seed=seed)
    try:
        return graphs.write(lowered, directory)
    except OSError as error:
        raise OutputError(
            f"the graph of {network.words} ({4 * network.parameters / 1e6:.0f} MB) cannot be written to {directory.parent}: "
            f"{error.strerror}. Free space, or name another place for temporary files in TMPDIR"
        ) from error


def _check_answers(network: _Network, source: Checkpoint, session: OnnxSession, images: dict[Setting, Array]) -> None:
    """Compare each S²-MLP with PyTorch on one image of each size, and run each MLP-Mixer, whose weights are random."""
    from s2mlp_deploy.families.registry import family_of
    from s2mlp_deploy.gate import reference_logits

    weights = {name: source.weights[name] for name in network.spec.parameter_shapes()}
    model = family_of(network.spec).build(network.spec, weights) if network.model == S2MLP else None
    for setting, image in {setting.size: (setting, images[setting]) for setting in network.settings}.values():
        logits = session.run(image)
        if model:
            distance = compare(logits, reference_logits.run(model, image)).relative_l2
            if not distance <= AGREEMENT:
                raise ParityError(
                    f"the graph does not compute what PyTorch does at {format_size(setting.size)} (relative L2 {distance:.2g}, "
                    f"limit {AGREEMENT:.0e}), so its times would say nothing: s2mlp-export --dynamic-size says more"
                )
        elif not np.isfinite(logits).all():
            raise ParityError(
                f"{network.model} with random weights overflows at {format_size(setting.size)}: pass another --seed"
            )


def take_rounds(
    calls: Mapping[Key, Callable[[], float]], plan: Plan, listener: Listener, clock: Clock
) -> dict[Key, tuple[float, ...]]:
    """The samples of whole rounds, each point once a round, in an order drawn anew."""
    rng = random.Random(plan.seed)
    named = {f"{model} {setting}": call for (model, setting), call in calls.items()}
    with listener.step(f"warming up: {counted(WARMUP, 'round')} of {counted(len(calls), 'point')}"):
        first = interleave(named, rounds=WARMUP, rng=rng)
    takes_ms = {name: min(samples) for name, samples in first.items()}
    named = {name: call if takes_ms[name] > LONG_MS else _second(call) for name, call in named.items()}
    about_s = sum(takes_ms.values()) / 1e3
    rounds: list[Mapping[str, tuple[float, ...]]] = []
    with listener.step(
        f"timing {counted(len(calls), 'point')} interleaved: {counted(plan.rounds, 'round')} or more of {about_s:.2g} s or more"
    ):
        start = clock()
        while len(rounds) < plan.rounds or clock() - start < plan.min_seconds:
            rounds.append(interleave(named, rounds=1, rng=rng))
    return {key: tuple(r[name][0] for r in rounds) for key, name in zip(calls, named, strict=True)}


def _second(call: Callable[[], float]) -> Callable[[], float]:
    def candidate() -> float:
        call()
        return call()

    return candidate


def _point(network: _Network, setting: Setting, taken: Footprint, samples_ms: tuple[float, ...]) -> Point:
    spec, size = network.spec, setting.size
    macs = spec.macs(size) if network.size is None else mixer.like(spec, size).macs()
    positions = prod(spec.map_sizes(size)[0])
    return Point(
        network.model, setting, positions, spec.depth, network.parameters, setting.batch * macs, taken, samples_ms
    )


def _words(setting: Setting) -> str:
    return f"{format_size(setting.size)}, batch {setting.batch}"
