"""Draw docs/architecture.svg: the layers of the core, and the paths of a checkpoint and of a bundle through them.

Run ``python docs/architecture.py`` after a change here.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

LAYERS = (
    ("cli", "commands"),
    ("pipeline", "stages"),
    ("quantization", "int8"),
    ("gate", "numbers"),
    ("formats, exporters", "artifacts"),
    ("checkpoint, bundle", "files"),
    ("families, passes", "networks, rewrites"),
    ("graph, data, runtime", "ONNX, images, sessions"),
    ("schema, system, errors", "shared by all"),
)
LEFT, TOP, LANE, COLUMN, WIDTH, HEIGHT = 184, 66, 66, 124, 104, 44

# (column, layer, first line, second line); a path visits its steps in order.
EXPORT = (
    (0, 0, "s2mlp-export", "options → request"),
    (1, 1, "export_onnx", "the first stage"),
    (2, 5, "load", "weights as data"),
    (3, 6, "layout, spec", "recognised"),
    (4, 6, "reference", "reads like the paper"),
    (4, 7, "emit", "the shift is lowered"),
    (4, 3, "golden tensors", "logits in float64"),
    (5, 6, "passes", "fold, simplify, round"),
    (6, 2, "calibrate", "int8 alone"),
    (6, 4, "model.onnx", "the ONNX format"),
    (7, 7, "session", "ONNX Runtime"),
    (7, 3, "gate", "as near as PyTorch?"),
    (8, 5, "ONNX bundle", "published whole"),
)
COMPILE = (
    (9, 1, "compile", "the second stage"),
    (9, 5, "read", "every hash compared"),
    (10, 4, "an exporter", "makes the engine"),
    (11, 7, "session", "the engine's runtime"),
    (11, 3, "gate", "golden tensors alone"),
    (12, 5, "engine bundle", "published whole"),
)
ARROWS = (
    *(
        (EXPORT[a], EXPORT[b])
        for a, b in (
            (0, 1),
            (1, 2),
            (2, 3),
            (3, 4),
            (3, 5),
            (4, 6),
            (5, 7),
            (7, 9),
            (8, 9),
            (9, 10),
            (10, 11),
            (6, 11),
            (11, 12),
        )
    ),
    (EXPORT[12], COMPILE[1]),
    *((COMPILE[a], COMPILE[b]) for a, b in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5))),
)


def draw() -> str:
    """The picture as SVG."""
    width, height = LEFT + 13 * COLUMN + 10, TOP + len(LAYERS) * LANE + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#475569"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for row, (name, holds) in enumerate(LAYERS):
        y = TOP + row * LANE
        parts.append(f'<rect x="8" y="{y}" width="{width - 16}" height="{LANE - 4}" rx="6" fill="#f1f5f9"/>')
        parts.append(_text(20, y + 28, name, 14, "#0f172a", weight="bold", anchor="start"))
        parts.append(_text(20, y + 46, holds, 11, "#64748b", anchor="start"))
    for title, first, last, colour in (
        ("A checkpoint becomes an ONNX bundle", 0, 8, "#1d4ed8"),
        ("A bundle becomes an engine, without torch", 9, 12, "#047857"),
    ):
        x1, x2 = LEFT + first * COLUMN, LEFT + last * COLUMN + WIDTH
        parts.append(_text((x1 + x2) / 2, 28, title, 16, colour, weight="bold"))
        parts.append(f'<path d="M{x1},42 H{x2}" stroke="{colour}" stroke-width="3"/>')
    parts += [_arrow(start, end) for start, end in ARROWS]
    parts += [_box(step, "#dbeafe", "#1d4ed8") for step in EXPORT] + [
        _box(step, "#d1fae5", "#047857") for step in COMPILE
    ]
    return "\n".join([*parts, "</svg>", ""])


def _corner(step: tuple[int, int, str, str]) -> tuple[int, int]:
    return LEFT + step[0] * COLUMN, TOP + step[1] * LANE + (LANE - 4 - HEIGHT) // 2


def _box(step: tuple[int, int, str, str], fill: str, line: str) -> str:
    x, y = _corner(step)
    return "\n".join(
        [
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5" fill="{fill}" stroke="{line}"/>',
            _text(x + WIDTH / 2, y + 19, step[2], 13, "#0f172a", weight="bold"),
            _text(x + WIDTH / 2, y + 34, step[3], 9.5, "#334155"),
        ]
    )


def _arrow(start: tuple[int, int, str, str], end: tuple[int, int, str, str]) -> str:
    (x1, y1), (x2, y2) = _corner(start), _corner(end)
    side, middle = x1 + WIDTH, x2 + WIDTH / 2
    if start[0] == end[0]:
        path = f"M{middle},{y1 + HEIGHT} V{y2 - 2}" if y2 > y1 else f"M{middle},{y1} V{y2 + HEIGHT + 2}"
    elif y1 == y2:
        path = f"M{side},{y1 + HEIGHT / 2} H{x2 - 2}"
    elif end[1] == start[1] + 1:  # to the lane below: down, then into the side of the box
        path = f"M{x1 + WIDTH / 2},{y1 + HEIGHT} V{y2 + HEIGHT / 2} H{x2 - 2}"
    elif end[2] == "session":  # below the gate, whose arrow takes the top of the box
        path = f"M{side},{y1 + HEIGHT / 2} h10 V{y2 + HEIGHT / 2} H{x2 - 2}"
    else:  # along the lane, then up or down into the box
        path = f"M{side},{y1 + HEIGHT / 2} H{middle} V{y2 - 2 if y2 > y1 else y2 + HEIGHT + 2}"
    return f'<path d="{path}" fill="none" stroke="#475569" stroke-width="1.6" marker-end="url(#tip)"/>'


def _text(x: float, y: float, text: str, size: float, fill: str, weight: str = "normal", anchor: str = "middle") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), "utf-8")
