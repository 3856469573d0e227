"""Small charts as inline SVG, for the report: drawn here, coloured by its style sheet.

Each function returns one ``<svg>`` that carries its own description. Series differ by
shape as well as by colour. The drawing is 360 units wide, so that its letters are
readable on a phone and not coarse beside a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH = 360
TOP = 8
ROW = 24
AXIS = 34
RIGHT = 14

#: Larger values are left out of a drawing: nothing that is measured in seconds comes near.
LARGEST = 1e9


@dataclass(frozen=True)
class Series:
    """One host's values, in the order of the rows.

    Attributes:
        name: what the legend says.
        values: one per row; None where nothing was measured.
    """

    name: str
    values: Sequence[float | None]


def ticks(largest: float, wanted: int = 4) -> list[float]:
    """Return round numbers from 0 up to at least ``largest``.

    The step is 1, 2 or 5 times a power of ten.

    Args:
        largest: the largest value to be shown; what is as good as 0 is taken as 1.
        wanted: how many steps there should be at most.
    """
    largest = largest if largest > 1e-9 else 1.0
    power = 10.0 ** math.floor(math.log10(largest / wanted))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * wanted >= largest)
    return [step * index for index in range(math.ceil(largest / step - 1e-9) + 1)]


def marker(index: int, x: float = 7, y: float = 7) -> Markup:
    """Draw the mark of a series: disc, open diamond, triangle, open square.

    Args:
        index: the place of the series; shapes repeat after four.
        x: centre.
        y: centre.
    """
    name = f"mark s{index % 4}"
    if index % 4 == 0:
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4.5"/>').format(name, x, y)
    paths = ["", "M0-5.6 5.6 0 0 5.6-5.6 0Z", "M0-5 5 4H-5Z", "M-4-4H4V4H-4Z"]
    return Markup('<path class="{}" transform="translate({:.1f} {:.1f})" d="{}"/>').format(
        name, x, y, paths[index % 4]
    )


def dots(
    description: str,
    rows: Sequence[str],
    series: Sequence[Series],
    unit: str,
    line: tuple[float, str] | None = None,
) -> Markup | None:
    """Draw one row per label with a mark per series, and what lies between them as a line.

    Args:
        description: the text alternative of the drawing.
        rows: the labels.
        series: the values, one list per host.
        unit: the caption of the axis.
        line: a value to compare with, and its name.

    Returns:
        The drawing, or None where there is no value to show.
    """
    points = [[_drawable(_at(one.values, row)) for one in series] for row in range(len(rows))]
    known = [value for row in points for value in row if value is not None]
    line = line if line and _drawable(line[0]) is not None else None
    if not known:
        return None
    left = _gutter(rows)
    scale = _Scale(left, ticks(max([*known, line[0]] if line else known)))
    height = TOP + ROW * len(rows)
    parts = [scale.grid(height, unit)]
    if line:
        parts.append(scale.line(line[0], height, line[1]))
    for row, label in enumerate(rows):
        y = TOP + ROW * (row + 0.5)
        parts.append(_label(label, left, y))
        there = [value for value in points[row] if value is not None]
        if len(there) > 1:
            parts.append(_between(scale, min(there), max(there), y))
        parts.extend(
            marker(index, scale.x(value), y)
            for index, value in enumerate(points[row])
            if value is not None
        )
    return _svg(description, height + AXIS, parts)


def signed(
    description: str,
    rows: Sequence[str],
    series: Sequence[Series],
    unit: str,
    limit: tuple[float, str],
    means: Sequence[tuple[float | None, float | None, float | None]],
) -> Markup | None:
    """Draw differences on both sides of 0, and below them each mean with its interval.

    Args:
        description: the text alternative of the drawing.
        rows: the labels.
        series: the values, one list per host.
        unit: the caption of the axis.
        limit: a size to compare with, drawn on both sides, and its name.
        means: low end, mean and high end for each series; None where there is none.

    Returns:
        The drawing, or None where there is no value to show.
    """
    points = [[_both_ways(_at(one.values, row)) for one in series] for row in range(len(rows))]
    known = [value for row in points for value in row if value is not None]
    if not known:
        return None
    bars = [(_both_ways(low), _both_ways(mean), _both_ways(high)) for low, mean, high in means]
    largest = max(1.0, limit[0], *map(abs, known), *[abs(v) for bar in bars for v in bar if v])
    marks = ticks(largest, 2)
    left = _gutter([*rows, "mean"])
    scale = _Scale(left, [-mark for mark in reversed(marks[1:])] + marks)
    height = TOP + ROW * len(rows) + (ROW * len(bars) + TOP if bars else 0)
    parts = [scale.grid(height, unit)]
    parts.append(
        Markup('<path class="zero" d="M{:.1f} {}V{:.1f}"/>').format(scale.x(0), TOP, height)
    )
    parts.extend(scale.line(side * limit[0], height, limit[1]) for side in (-1, 1))
    for row, label in enumerate(rows):
        y = TOP + ROW * (row + 0.5)
        parts.append(_label(label, left, y))
        for index, value in enumerate(points[row]):
            if value is not None:
                parts.append(_between(scale, 0.0, value, y))
                parts.append(marker(index, scale.x(value), y))
    for index, (low, mean, high) in enumerate(bars):
        y = TOP + ROW * (len(rows) + index + 0.5) + TOP
        parts.append(_label("mean", left, y))
        if low is not None and high is not None:
            parts.append(
                Markup('<path class="interval" d="M{0:.1f} {2:.1f}v8m0-4H{1:.1f}m0-4v8"/>').format(
                    scale.x(low), scale.x(high), y - 4
                )
            )
        if mean is not None:
            parts.append(marker(index, scale.x(mean), y))
    return _svg(description, height + AXIS, parts)


def strips(
    description: str,
    rows: Sequence[tuple[str, Sequence[float], float | None]],
    unit: str,
    line: tuple[float, str] | None = None,
) -> Markup | None:
    """Draw every sample of a few distributions, and the middle of each.

    Args:
        description: the text alternative of the drawing.
        rows: label, samples and median of each distribution.
        unit: the caption of the axis.
        line: a value to compare with, and its name.

    Returns:
        The drawing, or None where there is no sample to show.
    """
    drawn = [
        (
            label,
            [value for value in map(_drawable, samples) if value is not None],
            _drawable(middle),
        )
        for label, samples, middle in rows
    ]
    known = [
        value for _, samples, middle in drawn for value in [*samples, middle] if value is not None
    ]
    line = line if line and _drawable(line[0]) is not None else None
    if not known:
        return None
    left = _gutter([label for label, _, _ in drawn])
    scale = _Scale(left, ticks(max([*known, line[0]] if line else known)))
    tall = ROW + 8
    height = TOP + tall * len(drawn)
    parts = [scale.grid(height, unit)]
    if line:
        parts.append(scale.line(line[0], height, line[1]))
    for row, (label, samples, middle) in enumerate(drawn):
        y = TOP + tall * (row + 0.5)
        parts.append(_label(label, left, y))
        # Neighbours are moved apart a little, always the same way, so that they can be counted.
        parts.extend(
            Markup('<circle class="sample" cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(
                scale.x(value), y + (index % 5 - 2) * 3
            )
            for index, value in enumerate(samples)
        )
        if middle is not None:
            parts.append(
                Markup('<path class="middle" d="M{:.1f} {:.1f}v22"/>').format(
                    scale.x(middle), y - 11
                )
            )
    return _svg(description, height + AXIS, parts)


def stack(description: str, parts: Sequence[tuple[str, float | None]]) -> Markup | None:
    """Draw the parts of a whole as one bar.

    Args:
        description: the text alternative of the drawing.
        parts: name and size of each part, six at the most (the colours of report.css); only the
            sizes above 0 are drawn.

    Returns:
        The drawing, or None where every part is unknown or 0.
    """
    sizes = [(index, _drawable(size) or 0.0) for index, (_, size) in enumerate(parts)]
    whole = sum(size for _, size in sizes)
    if whole <= 0:
        return None
    drawn: list[Markup] = []
    x = 0.0
    for index, size in sizes:
        wide = WIDTH * size / whole
        if wide > 0:
            drawn.append(
                Markup(
                    '<rect class="part p{}" x="{:.2f}" y="0" width="{:.2f}" height="22"/>'
                ).format(index, x, max(wide - 1, 0.4))
            )
        x += wide
    return _svg(description, 22, drawn, stretch=True)


class _Scale:
    """The horizontal axis: from the first tick at ``left`` to the last at the right edge."""

    def __init__(self, left: float, marks: list[float]) -> None:
        self.left, self.marks = left, marks

    def x(self, value: float) -> float:
        """Return where a value lies."""
        share = (value - self.marks[0]) / (self.marks[-1] - self.marks[0])
        return self.left + (WIDTH - RIGHT - self.left) * share

    def grid(self, height: float, unit: str) -> Markup:
        """Draw the ticks with their numbers and, below, the caption."""
        parts = [
            Markup(
                '<path class="grid" d="M{0:.1f} {1}V{2:.1f}"/>'
                '<text class="tick" x="{0:.1f}" y="{3:.1f}">{4}</text>'
            ).format(self.x(mark), TOP, height, height + 13, _tick(mark))
            for mark in self.marks
        ]
        middle = (self.left + WIDTH - RIGHT) / 2
        parts.append(
            Markup('<text class="unit" x="{:.1f}" y="{:.1f}">{}</text>').format(
                middle, height + 28, unit
            )
        )
        return Markup("").join(parts)

    def line(self, value: float, height: float, name: str) -> Markup:
        """Draw a value to compare with; ``name`` becomes its tooltip."""
        return Markup('<path class="limit" d="M{:.1f} {}V{:.1f}"><title>{}</title></path>').format(
            self.x(value), TOP - 6, height, name
        )


def _tick(mark: float) -> str:
    return f"{round(mark, 9):g}".replace("-", "\N{MINUS SIGN}")


def _between(scale: _Scale, start: float, end: float, y: float) -> Markup:
    return Markup('<path class="between" d="M{:.1f} {:.1f}H{:.1f}"/>').format(
        scale.x(start), y, scale.x(end)
    )


def _both_ways(value: float | None) -> float | None:
    return value if value is not None and abs(value) < LARGEST else None


def _drawable(value: float | None) -> float | None:
    return value if value is not None and 0 <= value < LARGEST else None


def _at(values: Sequence[float | None], index: int) -> float | None:
    return values[index] if index < len(values) else None


def _gutter(labels: Sequence[str]) -> float:
    longest = max((min(len(label), 14) for label in labels), default=0)
    return 14 + 6.4 * longest


def _label(text: str, left: float, y: float) -> Markup:
    shown = text if len(text) <= 14 else text[:13] + "…"
    return Markup('<text class="row" x="{:.1f}" y="{:.1f}">{}</text>').format(
        left - 10, y + 4, shown
    )


def _svg(
    description: str, height: float, parts: Sequence[Markup], *, stretch: bool = False
) -> Markup:
    return Markup(
        '<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {:.0f}"{}>{}</svg>'
    ).format(
        description,
        WIDTH,
        height,
        Markup(' preserveAspectRatio="none"') if stretch else "",
        Markup("").join(parts),
    )
