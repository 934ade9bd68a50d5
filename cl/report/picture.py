"""Matrices too large for a table of numbers, as small coloured pictures inside the page."""

import base64
import io
import re
from html import escape
from importlib import resources

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVELS = 20  # colours of a cell: h0 to h20 in page.css


def level(value: float, low: float, high: float) -> int:
    """Return the colour of a cell: 0 for `low` to `LEVELS` for `high`, which may be below `low`."""
    return int(np.clip(round((value - low) / (high - low) * LEVELS), 0, LEVELS))


def png(data: bytes, alt: str, style: str = "") -> str:
    """Return an image element that holds its own PNG file."""
    source = base64.b64encode(data).decode()
    kind = f' class="{style}"' if style else ""
    return f'<img{kind} src="data:image/png;base64,{source}" alt="{escape(alt, quote=True)}" loading="lazy">'


def heat(values: Array, low: float, high: float, alt: str) -> str:
    """Return a matrix (rows, columns) as an image element, one pixel a cell, in the colours of the page's cells."""
    from PIL import Image

    css = (resources.files("cl.report") / "page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"\.h(\d+)\{background:#([0-9a-f]{6})", css))
    palette = [int(colours[str(n)][i : i + 2], 16) for n in range(LEVELS + 1) for i in (0, 2, 4)]
    share = np.clip(np.nan_to_num((values - low) / (high - low)), 0, 1)
    image = Image.fromarray(np.where(np.isnan(values), LEVELS + 1, np.round(share * LEVELS)).astype(np.uint8), mode="P")
    image.putpalette([*palette, 255, 255, 255])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, transparency=LEVELS + 1)
    return png(file.getvalue(), alt, "heat")
