"""The house style of pictures, and their bytes: colours, fonts, text that fits, files that are the same every time.

matplotlib is imported only where something is drawn, and used by its objects, without pyplot and without a user's settings.
Lengths are in points. A picture for the report keeps its text as text, which the reader's own fonts show.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.system.dependencies import pip_install

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text


INK, QUIET, FAINT, GRID, PAPER = "#1a1a1a", "#5c5c5c", "#9a9a9a", "#e4e4e4", "#ffffff"
BUNDLE, BASELINE = "#004488", "#bb5566"
"""Paul Tol's high-contrast scheme, as in the toolkit's other pictures."""

_THOUSANDS = 1000
"""From here on numbers have commas, and nothing behind the point."""

_APART = 6.0
"""Between the numbers of a horizontal axis, at the least."""

_FEWEST = 4
"""Letters that stay of a name, however narrow its place is."""


_FEW_DECADES = 500
"""Up to this many times the lowest value, a logarithmic axis has more numbers than its powers of ten."""


def require() -> None:
    """That pictures can be drawn.

    Raises:
        RuntimeMissingError: where matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise RuntimeMissingError(
            f"pictures need matplotlib, which is not installed: {pip_install('bench')}"
        ) from error


@contextmanager
def style(font_size: float, *, text_as_text: bool = False) -> Iterator[None]:
    """This project's settings for what is drawn and saved inside; names of bundles are no formulas."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")  # a name in a script that the font lacks is drawn as boxes
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "font.size": font_size,
                "axes.linewidth": 0.7,
                "text.parse_math": False,
                "svg.fonttype": "none" if text_as_text else "path",
                "text.color": INK,
                "axes.labelcolor": INK,
                "axes.edgecolor": QUIET,
                "xtick.color": QUIET,
                "ytick.color": QUIET,
                "xtick.labelcolor": INK,
                "ytick.labelcolor": INK,
                "xtick.labelsize": font_size,
                "ytick.labelsize": font_size,
            }
        )
        yield


def blank(width: float, height: float) -> Figure:
    """A figure with nothing in it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=150, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def page(figure: Figure) -> tuple[float, float]:
    """Width and height of a figure."""
    width, height = figure.get_size_inches()
    return 72 * float(width), 72 * float(height)


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place counted from the figure's upper left corner."""
    whole, high = page(figure)
    return figure.add_axes((left / whole, 1 - (top + height) / high, width / whole, height / high), facecolor="none")


def font_size() -> float:
    """The style's font size."""
    import matplotlib as mpl

    return float(mpl.rcParams["font.size"])


def printable(text: str) -> str:
    """``text`` in one line, without what no file may contain: a directory's name can be any bytes."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def extent(text: Text) -> tuple[float, float]:
    """Width and height of a text."""
    figure = text.get_figure(root=True)
    assert figure is not None
    box = text.get_window_extent()
    return box.width * 72 / figure.dpi, box.height * 72 / figure.dpi


def fit(text: Text, width: float) -> None:
    """Leave out the middle of lines that are longer than ``width``."""
    lines = text.get_text().split("\n")
    fits, too_many = _FEWEST, max(map(len, lines)) + 1
    if extent(text)[0] <= width:
        return
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        text.set_text("\n".join(_shortened(line, middle) for line in lines))
        fits, too_many = (middle, too_many) if extent(text)[0] <= width else (fits, middle)
    text.set_text("\n".join(_shortened(line, fits) for line in lines))


def _shortened(line: str, count: int) -> str:
    return line if count >= len(line) else f"{line[: (count + 1) // 2]}…{line[len(line) - count // 2 :]}"


def number_axis(axes: Axes, *, horizontal: bool, unit: str = "") -> None:
    """Ticks as people write numbers; a logarithmic axis has 1, 2 and 5 where these are few enough."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    axis = axes.xaxis if horizontal else axes.yaxis
    low, high = sorted(axes.get_xlim() if horizontal else axes.get_ylim())
    if axis.get_scale() == "log":
        steps = (1, 2, 5) if high < _FEW_DECADES * low else (1,)
        decades = range(floor(log10(low)), ceil(log10(high)) + 1)
        values = [step * 10.0**decade for decade in decades for step in steps]
    else:
        values = [float(value) for value in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)]
    shown = [value for value in values if low <= value <= high]
    axis.set_minor_locator(NullLocator())
    axis.set_ticks(shown, [_number(value) + unit for value in shown])
    while horizontal and len(shown) > 1 and not _arrange(axes, shown):
        shown = shown[::2]
        axis.set_ticks(shown, [_number(value) + unit for value in shown])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= _THOUSANDS else f"{value:.6g}"


def _arrange(axes: Axes, values: Sequence[float]) -> bool:
    """Keep numbers at the ends of a horizontal axis from reaching beyond it; whether all stand apart."""
    width, free = size(axes)[0], 0.0
    for value, text in zip(values, axes.get_xticklabels(), strict=True):
        x, whole = place(axes, value, axes.get_ylim()[0])[0], extent(text)[0]
        if x < whole / 2:
            text.set_horizontalalignment("left")
            left = x
        elif x > width - whole / 2:
            text.set_horizontalalignment("right")
            left = x - whole
        else:
            text.set_horizontalalignment("center")
            left = x - whole / 2
        if left < free:
            return False
        free = left + whole + _APART
    return True


def size(axes: Axes) -> tuple[float, float]:
    """Width and height of ``axes``."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    (width, height), where = page(figure), axes.get_position()
    return width * float(where.width), height * float(where.height)


def place(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Where data are, from the lower left corner of ``axes``."""
    across, up = (axes.transData + axes.transAxes.inverted()).transform((x, y))
    width, height = size(axes)
    return float(across) * width, float(up) * height
