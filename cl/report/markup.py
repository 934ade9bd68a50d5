"""Pieces of HTML that several sections use; every text goes through `html.escape` here."""

from collections.abc import Iterable, Mapping
from html import escape


def scroll(table: str, label: str) -> str:
    """Wrap a wide table so that it scrolls by itself, also with the keyboard, and the page does not."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label, quote=True)}">{table}</div>'


def facts(values: Mapping[str, object], label: str) -> str:
    """Return a table of names and values."""
    rows = "".join(f"<tr><th scope=row>{escape(k)}</th><td>{escape(text(v))}</td></tr>" for k, v in values.items())
    return scroll(f'<table class="plain"><tbody>{rows}</tbody></table>', label)


def table(heads: Iterable[str], rows: Iterable[Iterable[object]], label: str) -> str:
    """Return a table whose first column names the row."""
    top = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = ""
    for row in rows:
        first, *rest = row
        cells = "".join(f"<td{' class=n' if isinstance(v, float) else ''}>{escape(text(v))}</td>" for v in rest)
        body += f"<tr><th scope=row>{escape(text(first))}</th>{cells}</tr>"
    return scroll(f'<table class="plain"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>', label)


def folded(summary: str, content: str) -> str:
    """Return content that is opened by a click; it works without script."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def text(value: object) -> str:
    """Return a plain value as short text.

    >>> text(0.1), text(None), text([1, 2]), text(1234500.0)
    ('0.1', '-', '[1, 2]', '1,234,500')
    """
    if value is None:
        return "-"
    if isinstance(value, float) and abs(value) >= 1e5 and value.is_integer():
        return f"{value:,.0f}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
