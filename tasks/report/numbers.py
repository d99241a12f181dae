"""How the report writes numbers, dates and links; a missing one is a dash that says so, never a zero."""

from __future__ import annotations

import re
from datetime import datetime

from markupsafe import Markup, escape

from conf.text import format_duration

NIL = Markup('<span class="nil" title="not recorded">\N{EM DASH}</span>')
_GAP = "\N{NO-BREAK SPACE}"


def is_percent(value: float | None) -> bool:
    """Whether a number can be drawn as an accuracy."""
    return value is not None and 0 <= value <= 100


def si(value: float) -> str:
    """Three significant digits and the paper's suffix: ``72.4 k``, ``5.29 M``, ``37.7 B``."""
    rounded = float(f"{value:.3g}")  # first, so that 999,600 becomes 1.00 M and not 1000 k
    power, suffix = next(((p, s) for p, s in ((9, "B"), (6, "M"), (3, "k")) if abs(rounded) >= 10**p), (0, ""))
    if power == 0:
        return f"{rounded:g}"
    return f"{rounded / 10**power:#.3g}".rstrip(".") + _GAP + suffix


def tick(value: float) -> str:
    """``5 M`` where :func:`si` writes ``5.00 M``."""
    number, gap, suffix = si(value).partition(_GAP)
    return f"{float(number):g}{gap}{suffix}"


def plain(value: float | None, spec: str) -> str:
    """``format`` with a dash for a missing number."""
    return "\N{EM DASH}" if value is None else format(value, spec)


def plus_minus(percent: float | None, error: float | None, n: float | None) -> str:
    """``96.20 ± 0.60 % (n = 1,000)``."""
    if error is None:
        return f"{plain(percent, '.2f')}{_GAP}%"
    return f"{plain(percent, '.2f')} ± {error:.2f}{_GAP}% (n{_GAP}={_GAP}{plain(n, ',.0f')})"


def _numeral(value: float | None, shown: str, exact: str = "") -> Markup:
    """A number for the reader, with the exact one for a machine in ``value``."""
    if value is None:
        return NIL
    hover = f' title="{escape(exact)}"' if exact else ""  # without Markup.format: a page has thousands of numbers
    return Markup(f'<data value="{escape(value)}"{hover}>{escape(shown)}</data>')  # noqa: S704 - all is escaped


def count(value: float | None) -> Markup:
    """``1,281,167``."""
    return _numeral(value, plain(value, ",.0f"))


def size(value: float | None) -> Markup:
    """``5.29 M``, with the exact integer under the pointer."""
    return _numeral(value, si(value or 0), plain(value, ",.0f"))


def printed(value: float | None, suffix: str) -> Markup:
    """``0.70 B``, ``5.3 M``, ``12 M``: the digits that the paper prints."""
    places = 2 if (value or 0) < 1 else 1 if (value or 0) < 10 else 0
    return _numeral(value, f"{plain(value, f'.{places}f')}{_GAP}{suffix}")


def decimal(value: float | None, places: int = 2) -> Markup:
    """``77.10`` for two places."""
    return _numeral(value, plain(value, f",.{places}f"))


def general(value: float | None) -> Markup:
    """``1.15``, ``2``, ``0.016``, ``1e-05``: four digits and no zeros behind them."""
    return _numeral(value, re.sub("^-", "\N{MINUS SIGN}", f"{value or 0:.4g}"))


def p_value(value: float | None) -> Markup:
    """``0.49``, ``0.023``, and ``< 0.001`` for anything below."""
    return _numeral(value, f"<{_GAP}0.001" if (value or 0) < 0.001 else f"{value:.2g}")


def times(value: float | None) -> Markup:
    """``×5.7``: a ratio with the digits that the paper prints."""
    return _numeral(value, f"×{value or 0:.4g}")


def ratio(value: float | None) -> Markup:
    """``×1.53``, three digits."""
    return _numeral(value, f"×{(value or 0):#.3g}".rstrip(".") if (value or 0) < 999.5 else f"×{value:,.0f}")


def text(value: str | int | None) -> str:
    """The text itself, which the template escapes; a dash for none."""
    return NIL if value in (None, "") else str(value)


def link(label: str | None, url: str | None) -> str:
    """A link where the address is one of the web; any other (``javascript:``, a file) stays plain text."""
    if not label or not re.match(r"https?://", url or "", re.IGNORECASE):
        return text(label)
    return Markup('<a href="{}" rel="noreferrer">{}</a>').format(url, label)


def commit(value: str | None) -> str:
    """``0f3c9a7d51e2``, and ``0f3c9a7d51e2-dirty`` where files differed from the commit."""
    name, dash, state = (value or "").partition("-")
    return text(f"{name[:12]}{dash}{state}" or None)


def date(value: str | None) -> str:
    """``23 Nov 2025, 20:31 UTC`` for an ISO time, or one that ends in UTC; any other text as it is."""
    try:
        moment = datetime.fromisoformat((value or "").replace(" UTC", "+00:00"))
    except ValueError:
        return text(value)
    return f"{moment.day} {moment:%b %Y, %H:%M} {moment.tzname() or ''}".strip()


def duration(seconds: float | None) -> Markup:
    """``3 h 12 min``, ``41 min 12 s`` or ``42 s``."""
    return _numeral(seconds, format_duration(seconds or 0))


FILTERS = {
    "count": count,
    "si": size,
    "printed": printed,
    "dec": decimal,
    "p_value": p_value,
    "general": general,
    "times": times,
    "ratio": ratio,
    "duration": duration,
    "text": text,
    "link": link,
    "commit": commit,
    "date": date,
}
