"""The findings of a benchmark, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from s2mlp_bench.benchmark import Plan
from s2mlp_bench.summary import Figures, Summary
from s2mlp_deploy.system.wording import counted, some

NAMED = 6
"""Candidates that a sentence names."""


def title(found: Summary) -> str:
    """The title: the candidates compared."""
    bundles = list(dict.fromkeys(f.source for f in found.figures if f.kind == "bundle"))
    return f"How fast {_listed(bundles)} {'is' if len(bundles) == 1 else 'are'}"


def subtitle(found: Summary, plan: Plan) -> str:
    """The subtitle: baselines, settings and rounds."""
    parts = []
    if plan.baselines:
        parts.append(f"against {_listed(list(plan.baselines))}")
    swept = {
        "threads": [str(n) for n in plan.threads if n is not None],
        "batches of": [str(n) for n in plan.batches],
        "providers": [name for name in plan.providers if name is not None],
    }
    parts += [f"{what} {_listed(values)}" for what, values in swept.items() if len(values) > 1]
    parts += found.shared
    parts.append(counted(found.rounds, "interleaved round"))
    text = "; ".join(parts)
    return " ".join([text[0].upper() + text[1:] + ".", *found.shortening])


def findings(found: Summary) -> list[str]:
    """The fastest that computes the same, and how all stand to the first, with their intervals."""
    first, *others = found.figures
    right = [f for f in others if f.comparable]
    name = found.label(first)
    fastest = max(found.figures[:1] + tuple(right), key=lambda f: f.speed.median)
    if not right:
        return [f"{name} takes {_ms(first)} for a batch (median). Nothing else here computes the same."]
    said = []
    if fastest is first or not fastest.differs:
        said.append(
            f"Nothing that computes the same is shown to be faster than {name}, which takes {_ms(first)} (median)."
        )
    else:
        said.append(
            f"Fastest of those that compute the same: {_with_remark(found, fastest)}, {_times(fastest)} as fast as {name}."
        )
    groups = {
        f"Faster than {name}": [f for f in right if f.differs and f.speed.median > 1 and f is not fastest],
        f"No difference from {name} shown": [f for f in right if not f.differs],
        f"Slower than {name}": [f for f in right if f.differs and f.speed.median < 1],
    }
    for words, members in groups.items():
        if members:
            each = [
                f"{_with_remark(found, f)} ({f.speed.median:.2f}×, {f.speed.low:.2f} to {f.speed.high:.2f})"
                for f in members
            ]
            said.append(f"{words}: {_listed(each, separator='; ')}.")
    return said


def verdict(found: Summary) -> str:
    """Whether the figures are reliable; ``found.noise`` holds the reasons against it."""
    words = (
        "The machine held still while it was measured."
        if found.stable
        else "NOISY: another run may differ by more than the intervals say."
    )
    return words if found.complete else f"INCOMPLETE: interrupted before the time was up. {words}"


def remarks(found: Summary) -> list[tuple[str, str]]:
    """Candidates that cannot be compared with the others, and why."""
    return found.remarks(f for f in found.figures if not f.comparable)


def _with_remark(found: Summary, f: Figures) -> str:
    return found.label(f) + (f", {f.remark}" if f.remark else "")


def _times(f: Figures) -> str:
    return f"{f.speed.median:.2f} times (95% interval {f.speed.low:.2f} to {f.speed.high:.2f})"


def _ms(f: Figures) -> str:
    return f"{f.p50_ms:.3g} ms"


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    """A few of ``names``, and how many more there are."""
    if len(names) > NAMED:
        return some(names, NAMED, separator)
    if len(names) < 2:
        return "".join(names)
    return f"{separator.join(names[:-1])}{separator if ';' in separator else ' '}and {names[-1]}"
