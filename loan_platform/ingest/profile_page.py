"""The profile of a book as one HTML page that holds its own pictures.

Here: what people see of the figures. Not here: the figures (`profile`), what leaks (`leaks`).
A page goes to people who may not see applicants: of keys and free texts it shows counts and
lengths, of other columns ranges and groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup, escape

from loan_platform.engine.files import write_text
from loan_platform.ingest.leaks import Suspicion, evidence
from loan_platform.ingest.profile import PROBABILITIES, ColumnProfile, Profile, Share

GOOD, BAD, PLAIN, INK, PALE = "#9bb4cc", "#b5423c", "#c3ccd6", "#52606d", "#e6eaee"
SHOWN_CATEGORIES = 12
SHOWN_CORRELATED = 24
STRONG = 0.7  # correlations from here on are listed


def write_page(
    profile: Profile,
    path: Path,
    *,
    title: str = "Profile of a loan book",
    suspicions: Sequence[Suspicion] | None = None,
    accepted: Mapping[str, str] | None = None,
    used: Iterable[str] | None = None,
    simulated: bool = False,
) -> None:
    """Write the page.

    `suspicions`: default the profile's own `evidence`. `used`: columns a model learns from or its
    features read, where there is a contract; `accepted`: those of them used although they leak,
    and why.
    """
    environment = Environment(
        loader=PackageLoader("loan_platform.ingest"), autoescape=select_autoescape()
    )
    page = environment.get_template("profile.html").render(
        profile=profile,
        title=title,
        simulated=simulated,
        suspicions=evidence(profile) if suspicions is None else suspicions,
        accepted=dict(accepted or {}),
        used=None if used is None else set(used),
        months=_months_picture(profile),
        columns=[
            (column, _facts(column), list(_pictures(profile, column)))
            for column in sorted(profile.columns, key=lambda column: -column.strength)
            if column.type != "empty"
        ],
        empty=[column.name for column in profile.columns if column.type == "empty"],
        correlations=_correlation_picture(profile),
        strong=[pair for pair in profile.correlations if abs(pair[2]) >= STRONG],
        bar=_bar,
    )
    write_text(page, path)


def _facts(column: ColumnProfile) -> list[tuple[str, str]]:
    """What is said of a column in words."""
    present = column.rows - column.missing
    facts = [("values", f"{present:,}, {column.distinct:,} different")]
    if share := column.missing_share:
        told = f"{share.rows:,} ({share.rows / column.rows:.1%})"
        if share.known:
            told += f", {share.bad / share.known:.1%} of them bad"
        facts.append(("missing", told))
    if column.unreadable:
        facts.append(("not readable as a " + column.type, f"{column.unreadable:,}"))
    if column.numbers_rows or column.type == "text":
        if column.lengths:
            facts.append(("lengths", f"{column.lengths[0]} to {column.lengths[1]} characters"))
        return facts
    if column.low is not None:
        facts.append(("range", f"{_number(column.low)} to {_number(column.high)}"))
    if column.quantiles:
        median, low, high = (column.quantiles[PROBABILITIES.index(at)] for at in (0.5, 0.05, 0.95))
        facts.append(("median", f"{_number(median)}; 90 % in {_number(low)} to {_number(high)}"))
    notation = [f"without {' '.join(column.remove)}"] if column.remove else []
    notation += ["decimal comma"] if column.decimal == "," else []
    notation += [f"as {column.date_format}"] if column.date_format else []
    if notation:
        facts.append(("written", ", ".join(notation)))
    if column.after_application is not None:
        facts.append(("later than the application", f"{column.after_application:.1%}"))
    return facts


def _pictures(profile: Profile, column: ColumnProfile) -> Iterable[tuple[str, Markup]]:
    if column.numbers_rows or column.type == "text":
        return
    if column.quantiles_good and column.quantiles_bad and column.distinct > 2:
        yield "good loans above, bad below: 90 %, half, median", _strips(column)
    elif column.quantiles and column.distinct > 2:
        yield "90 %, half, median", _strips(column)
    if column.type == "category" or (column.distinct <= 2 and column.categories):
        yield _rates_caption(profile, "value"), _bars(profile, column.categories)
    elif len(column.bins) > 1:
        yield _rates_caption(profile, "bin, low to high"), _histogram(profile, column)
    if column.auc_by_month:
        yield "relation to the outcome by month (AUC)", _months_line(column)


def _rates_caption(profile: Profile, what: str) -> str:
    if profile.outcome is None:
        return f"rows of each {what}"
    return f"bad rate of each {what}; the line: {profile.bad_rate or 0:.1%} in the book"


def _strips(column: ColumnProfile) -> Markup:
    """Quantiles of good and bad loans on one scale, between the 1 % and 99 % points of all."""
    at = PROBABILITIES.index
    low, high = column.quantiles[at(0.01)], column.quantiles[at(0.99)]
    if low >= high:
        low, high = column.quantiles[0], column.quantiles[-1]
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return 4 + 352 * min(max((value - low) / span, 0), 1)

    rows = (
        [(column.quantiles_good, GOOD), (column.quantiles_bad, BAD)]
        if column.quantiles_good and column.quantiles_bad
        else [(column.quantiles, PLAIN)]
    )
    parts = []
    for place, (quantiles, colour) in enumerate(rows):
        y = 12 + 20 * place
        ends = [x(quantiles[at(share)]) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
        parts.append(_line(ends[0], y, ends[4], y, colour, 2))
        parts.append(_rectangle(ends[1], y - 6, max(ends[3] - ends[1], 1), 12, colour))
        parts.append(_line(ends[2], y - 8, ends[2], y + 8, "#1f2933", 2))
    bottom = 12 + 20 * len(rows)
    parts.append(_text(4, bottom + 4, _number(low)))
    parts.append(_text(356, bottom + 4, _number(high), "end"))
    return _svg(360, bottom + 8, parts)


def _histogram(profile: Profile, column: ColumnProfile) -> Markup:
    """Bars of the bad rate of each bin, as wide as the bin has rows; rows alone without outcome."""
    bins = column.bins
    total = sum(share.rows for share in bins)
    rates = [_rate(profile, share) for share in bins]
    top = max([*rates, profile.bad_rate or 0, 1e-9])
    parts, left, foot = [], 0.0, 96
    for share, rate in zip(bins, rates, strict=True):
        width = 360 * share.rows / total
        height = 80 * rate / top
        colour = BAD if profile.outcome else PLAIN
        told = f"{share.value}: {share.rows:,} rows"
        if share.known and profile.outcome:
            told += f", {share.bad / share.known:.1%} bad"
        parts.append(
            _rectangle(left + 0.5, foot - height, max(width - 1, 0.5), height, colour, told)
        )
        left += width
    if profile.bad_rate is not None:
        y = foot - 80 * profile.bad_rate / top
        parts.append(_line(0, y, 360, y, INK, 1, "3 3"))
    parts.append(_text(0, foot + 13, _number(column.low)))
    parts.append(_text(360, foot + 13, _number(column.high), "end"))
    if profile.outcome:
        parts.append(_text(360, 9, f"highest {max(rates):.1%}", "end"))
    return _svg(360, foot + 16, parts)


def _bars(profile: Profile, categories: Sequence[Share]) -> Markup:
    """Bars of the bad rate of each value, commonest first, with its share of the rows."""
    shown, rest = categories[:SHOWN_CATEGORIES], categories[SHOWN_CATEGORIES:]
    if rest:
        others = Share(
            value=f"{len(rest)} others",
            rows=sum(share.rows for share in rest),
            known=sum(share.known for share in rest),
            bad=sum(share.bad for share in rest),
        )
        shown = (*shown, others)
    total = sum(share.rows for share in categories) or 1
    rates = [_rate(profile, share) if profile.outcome else share.rows / total for share in shown]
    top = max([*rates, profile.bad_rate or 0, 1e-9])
    parts = []
    for place, (share, rate) in enumerate(zip(shown, rates, strict=True)):
        y = 17 * place
        name = share.value if len(share.value) <= 22 else share.value[:21] + "…"
        parts.append(_text(130, y + 12, name, "end"))
        colour = BAD if profile.outcome else PLAIN
        parts.append(_rectangle(135, y + 3, 120 * rate / top, 11, colour, share.value))
        told = f"{rate:.1%} of {share.rows:,}" if profile.outcome else f"{share.rows:,}"
        parts.append(_text(260, y + 12, told))
    if profile.bad_rate is not None:
        x = 135 + 120 * profile.bad_rate / top
        parts.append(_line(x, 0, x, 17 * len(shown), INK, 1, "3 3"))
    return _svg(360, 17 * len(shown) + 2, parts)


def _months_line(column: ColumnProfile) -> Markup:
    """The AUC of each month that has enough loans of either outcome."""
    months = column.auc_by_month
    areas = [area for _, _, area in months if area is not None]
    if not areas:
        return _svg(360, 20, [_text(0, 14, "no month has enough loans of either outcome")])
    low, high = min([0.5, *areas]), max([0.6, *areas])

    def y(area: float) -> float:
        return 62 - 54 * (area - low) / (high - low)

    step = 330 / max(len(months) - 1, 1)
    points = [(i * step, y(area)) for i, (_, _, area) in enumerate(months) if area is not None]
    parts = [_line(0, y(0.5), 330, y(0.5), INK, 1, "3 3")]
    parts.append(_polyline(points, BAD))
    parts += [_text(334, y(high) + 4, f"{high:.2f}"), _text(334, y(low) + 4, f"{low:.2f}")]
    parts += [_text(0, 78, months[0][0]), _text(330, 78, months[-1][0], "end")]
    return _svg(360, 80, parts)


def _months_picture(profile: Profile) -> Markup | None:
    """Rows of each month as bars, and their bad rate as a line."""
    if len(profile.months) < 2:
        return None
    width, most = 860 / len(profile.months), max(rows for _, rows, _ in profile.months)
    highest = max([rate for _, _, rate in profile.months if rate is not None] or [0])
    parts, points = [], []
    for place, (month, rows, rate) in enumerate(profile.months):
        height = 130 * rows / most
        told = f"{month}: {rows:,} rows" + ("" if rate is None else f", {rate:.1%} bad")
        left = place * width
        parts.append(_rectangle(left + 1, 140 - height, max(width - 2, 0.5), height, PLAIN, told))
        if rate is not None and highest:
            points.append((left + width / 2, 140 - 130 * rate / highest))
    parts.append(_polyline(points, BAD))
    first, last = profile.months[0][0], profile.months[-1][0]
    parts += [_text(0, 156, first), _text(860, 156, last, "end")]
    parts += [_text(430, 156, f"up to {most:,} rows a month", "middle")]
    if highest:
        parts.append(_text(860, 8, f"highest bad rate {highest:.1%}", "end"))
    return _svg(860, 160, parts)


def _correlation_picture(profile: Profile) -> Markup | None:
    """Squares of the columns with the strongest correlations, as the book has them in order."""
    rho = {frozenset(pair[:2]): pair[2] for pair in profile.correlations}
    strongest = dict.fromkeys(name for pair in profile.correlations for name in pair[:2])
    chosen = set(list(strongest)[:SHOWN_CORRELATED])
    names = [column.name for column in profile.columns if column.name in chosen]
    if len(names) < 2:
        return None
    cell, left = 22, 190
    parts = []
    for row, one in enumerate(names):
        parts.append(_text(left - 6, row * cell + 15, one[:28], "end"))
        for place, other in enumerate(names[:row]):
            value = rho.get(frozenset((one, other)))
            if value is None:
                continue
            colour = BAD if value > 0 else "#3b6ea5"
            told = f"{one}, {other}: {value:+.2f}"
            x = left + place * cell
            parts.append(_rectangle(x, row * cell, cell - 1, cell - 1, PALE))
            parts.append(
                _rectangle(x, row * cell, cell - 1, cell - 1, colour, told, opacity=abs(value))
            )
    return _svg(left + cell * len(names), cell * len(names), parts, wide=True)


def _bar(area: float | None) -> Markup:
    """An AUC as a small bar from 0.5 to 1."""
    if area is None:
        return Markup()
    return Markup(_svg(60, 10, [_rectangle(0, 2, 60 * (max(area, 0.5) - 0.5) * 2, 7, BAD)]))


def _rate(profile: Profile, share: Share) -> float:
    if profile.outcome is None:
        return 1.0
    return share.bad / share.known if share.known else 0.0


def _number(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    whole = value == int(value) or abs(value) >= 1000
    return f"{value:,.0f}" if whole else f"{value:.4g}"


def _svg(width: float, height: float, parts: Sequence[str], *, wide: bool = False) -> Markup:
    style = f"max-width: {width:.0f}px" if wide else f"width: {width:.0f}px"
    return Markup(
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="{style}" role="img">'
        f"{''.join(parts)}</svg>"
    )


def _rectangle(
    x: float, y: float, width: float, height: float, colour: str, told: str = "", opacity: float = 1
) -> str:
    title = f"<title>{escape(told)}</title>" if told else ""
    see = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{colour}"{see}>{title}</rect>'
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dashes: str = ""
) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}" stroke-dasharray="{dashes or "none"}"/>'
    )


def _polyline(points: Sequence[tuple[float, float]], colour: str) -> str:
    through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{through}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
