"""Charts as HTML with SVG inside: the drawing stretches with the page, the text does not.

The plot area is an SVG of 1000 x 1000 units without a fixed aspect ratio (strokes keep their width), the ticks are text
placed in per cent. So a chart fits any width without script, and the page's script can read every value back from the
coordinates and the ranges in the data attributes.
"""

from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from cl.report.figure import Figure, Panel, Series, ticks

Array = NDArray[np.float64]
STYLES = 24  # 8 colours x 3 dashes
LONGEST_NAME = 18  # characters of a name under the axis before its middle is left out


@dataclass(frozen=True)
class Scale:
    """From values to the 1000 units of the drawing; `flip` for an axis that points up."""

    low: float
    high: float
    flip: bool = False

    def __call__(self, values: Array) -> Array:
        """Return the places of values (N,)."""
        place = (np.asarray(values, float) - self.low) / (self.high - self.low) * 1000
        return np.asarray(1000 - place if self.flip else place)

    def at(self, value: float) -> float:
        """Return the place of one value."""
        return float(self(np.array(value)))


def draw(figure: Figure, ident: str) -> str:
    """Return a figure's panels as HTML."""
    panels = "".join(_panel(figure, panel, f"{ident}-{i}") for i, panel in enumerate(figure.panels))
    kind = "panels many" if len(figure.panels) > 1 else "panels one"
    return f'<div class="{kind}">{panels}</div>'


def swatch(style: int) -> str:
    """Return the key of a series: its line and marker."""
    return (
        f'<svg class="key s{style % STYLES}" viewBox="0 0 28 12" width="28" height="12" aria-hidden="true">'
        '<path class="line" d="M1 6H27"/><path class="dot" d="M14 6h0"/></svg>'
    )


def _panel(figure: Figure, panel: Panel, ident: str) -> str:
    x0, x1 = figure.x_limits()
    y0, y1 = figure.y_limits()

    at_x, at_y = Scale(x0, x1), Scale(y0, y1, flip=True)
    small = len(figure.panels) > 1
    parts: list[str] = []
    if panel.shade is not None:
        a, b = (float(v) for v in np.clip(at_x(np.array(panel.shade)), 0, 1000))
        parts.append(f'<rect class="shade" x="{a:.1f}" y="0" width="{b - a:.1f}" height="1000"/>')
    y_ticks = ticks(y0, y1, 4 if small else 5)
    parts.append('<g class="grid">' + "".join(f'<path d="M0 {at_y.at(t):.1f}H1000"/>' for t in y_ticks) + "</g>")
    inside = [b for b in panel.boundaries if x0 < b < x1]
    if inside:
        parts.append('<path class="bound" d="' + "".join(f"M{at_x.at(b):.1f} 0V1000" for b in inside) + '"/>')
    digits = 10 if figure.log else 4  # the page reads values back from places, also those near nothing
    parts += [_series(s, at_x, at_y, digits) for s in panel.series]
    labels = "".join(_tick("y", at_y.at(t), t, _number(t)) for t in y_ticks) + _x_ticks(figure, at_x, small)
    if figure.named:
        labels += _names(panel, at_x, at_y)
    task = "" if panel.task is None else f' data-task="{panel.task}"'
    title = f"<h4>{escape(panel.title)}</h4>" if panel.title else ""
    spoken = escape(f"{figure.title}. {panel.title}. {_spoken(panel)}", quote=True)
    names = f' data-names="{escape("|".join(figure.x_names), quote=True)}"' if figure.x_names else ""
    longest = max((len(n) for n in figure.x_names), default=0)
    room = 24 if small else 90 if figure.wide else 48  # characters that fit side by side
    slant = f' style="--names:{min(longest, LONGEST_NAME)}"' if (longest + 1) * len(figure.x_names) > room else ""
    kind = "plot slant" if slant else "plot"
    ranges = f'data-x="{x0:.9g},{x1:.9g}" data-y="{y0:.9g},{y1:.9g}" data-log="{figure.log}"{names}'
    return (
        f'<div class="panel"{task}>{title}<div class="{kind}"{slant} id="{ident}" role="img" tabindex="0" '
        f'aria-label="{spoken}" {ranges}>'
        '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(parts)}</svg>{labels}</div>"
        f'<p class="axes"><span class="yl">{escape(figure.y_label)}</span> '
        f'<span class="xl">{escape(figure.x_label)}</span></p></div>'
    )


def _series(s: Series, at_x: Scale, at_y: Scale, digits: int) -> str:
    x, y, low, high = at_x(s.x), at_y(s.y), at_y(s.low), at_y(s.high)
    good = np.isfinite(x) & np.isfinite(y)
    sure = good & np.isfinite(low) & np.isfinite(high)
    shapes = ""
    if s.joined:
        for run in _stretches(sure):
            if len(run) > 1:
                back = run[::-1]
                edges = f"{_points(x[run], high[run], digits)} {_points(x[back], low[back], digits)}"
                shapes += f'<polygon class="band" points="{edges}"/>'
        for run in _stretches(good):
            shapes += f'<polyline class="line" points="{_points(x[run], y[run], digits)}"/>'
        if good.sum() <= 30:
            shapes += f'<path class="dot" d="{_dots(x[good], y[good], digits)}"/>'
    else:
        bars = "".join(
            f"M{a:.{digits}g} {float(h):.{digits}g}V{float(w):.{digits}g}"
            for a, w, h in zip(x[sure], low[sure], high[sure], strict=True)
        )
        shapes += f'<path class="bar" d="{bars}"/>' if bars else ""
        shapes += f'<path class="dot" d="{_dots(x[good], y[good], digits)}"/>'
    return f'<g class="s{s.style % STYLES}" data-s="{s.style}" data-label="{escape(s.label, quote=True)}">{shapes}</g>'


def _stretches(good: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the runs of consecutive true places."""
    places = np.flatnonzero(good)
    return [run for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(run)]


def _points(x: Array, y: Array, digits: int) -> str:
    return " ".join(f"{a:.{digits}g},{b:.{digits}g}" for a, b in zip(x, y, strict=True))


def _dots(x: Array, y: Array, digits: int) -> str:
    return "".join(f"M{a:.{digits}g} {b:.{digits}g}h0" for a, b in zip(x, y, strict=True))


def _tick(axis: str, place: float, value: float, text: str) -> str:
    side = "top" if axis == "y" else "left"
    short = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME // 2]}…{text[1 - LONGEST_NAME // 2 :]}"
    whole = "" if short == text else f' title="{escape(text, quote=True)}"'
    attributes = f'style="{side}:{place / 10:.2f}%" data-v="{value:.6g}"'
    return f'<span class="t{axis}" {attributes}{whole}>{escape(short)}</span>'


def _x_ticks(figure: Figure, at_x: Scale, small: bool) -> str:
    if figure.x_names:
        every = -(-len(figure.x_names) // (6 if small else 24))
        shown = [(float(i), n) for i, n in enumerate(figure.x_names) if i % every == 0]
    else:
        x0, x1 = figure.x_limits()
        shown = [(t, _number(t)) for t in ticks(x0, x1, 3 if small else 5)]
        if figure.counts:
            shown = [(t, n) for t, n in shown if t.is_integer()]
    return "".join(_tick("x", at_x.at(v), v, name) for v, name in shown)


def _names(panel: Panel, at_x: Scale, at_y: Scale) -> str:
    """Write the label beside each point, pushed apart where they would overlap."""
    points = [(at_y.at(s.y[0]), at_x.at(s.x[0]), s) for s in panel.series if np.isfinite(s.y[0] + s.x[0])]
    texts, last = "", -1e9
    for y, x, s in sorted(points, key=lambda point: point[:2]):
        last = max(y, last + 55)
        side = "left" if x < 600 else "right"
        place = x / 10 if x < 600 else 100 - x / 10
        where = f"top:{last / 10:.1f}%;{side}:{place:.1f}%"
        kind = f"name s{s.style % STYLES}"
        texts += f'<span class="{kind}" data-s="{s.style}" style="{where}">{escape(s.label)}</span>'
    return texts


def _number(value: float) -> str:
    """Return a tick's text: short, and with thousands told apart.

    >>> _number(0.25), _number(1500.0), _number(2e6)
    ('0.25', '1500', '2M')
    """
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if sign == 'k' else size):g}{sign}"
    return f"{value:.6g}"


def _spoken(panel: Panel) -> str:
    """Return the last value of every series in words, for readers who do not see the drawing."""
    words = []
    for s in panel.series:
        good = np.flatnonzero(np.isfinite(s.y))
        if len(good):
            words.append(
                f"{s.label}: {s.y[good[0]]:.3g} to {s.y[good[-1]]:.3g}"
                if s.joined
                else f"{s.label}: {s.y[good[-1]]:.3g}"
            )
    return "; ".join(words)
