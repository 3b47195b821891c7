"""The figures of a page, as Vega-Lite built with Altair.

Each takes rows of plain values and gives a JSON-able specification whose width is its container's.
Colours of text, axes and background belong to the page, which has a light and a dark set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latlut.reports.comparison import COLOURS, KINDS
from latlut.reports.page.labels import CHART, label

Rows = Sequence[Mapping[str, Any]]

HEIGHT = 300
_LINE, _LIMIT = "#d62728", "#d97706"
_COLOURS = [
    "#2563a8", "#d97706", "#15803d", "#7c3aed", "#b91c1c", "#0e7490", "#a16207", "#be185d",
    "#4d7c0f", "#475569",
]  # fmt: skip
_SHAPES = ("circle", "triangle-up", "square", "diamond", "cross", "triangle-down")

#: Series of estimates, as ``latlut validate --plot`` colours them.
SUM, CALIBRATED, FITTED = "sum of entries", "calibrated", "calibrated (used in the fit)"
#: Names that may stand in several charts of a page: one colour and one shape each, everywhere.
_FAMILIES = (
    (SUM, CALIBRATED, FITTED),
    ("conv", "conv_2x", "zoomed_conv", "zoomed_conv_2x", "skip", "refine", "fusion", "head",
     "stem", "upsample"),
    ("loss", "main loss", "auxiliary loss", "distillation loss"),
    ("mean IoU", "pixel accuracy"),
    ("derived", "fitted"),
)  # fmt: skip
_PLACES = {name: place for family in _FAMILIES for place, name in enumerate(family)}
_KIND_COLOURS = {KINDS[kind]: colour for kind, colour in COLOURS.items()}


def heat_map(rows: Rows) -> dict[str, Any]:
    """Latency by channels and resolution, one operator at a time, chosen from a list.

    Args:
        rows: with ``operator``, ``channels`` ("64->96"), ``order``, ``size`` ("32x64"), ``area``,
            ``latency_ms`` and ``op_spec``.
    """
    import altair as alt

    names = sorted({row["operator"] for row in rows})
    chosen = alt.selection_point(
        name="operator", fields=["operator"], value=names[0],
        bind=alt.binding_select(options=names, name="operator "),
    )  # fmt: skip
    chart = (
        _chart(rows)
        .mark_rect()
        .encode(
            x=alt.X("channels:N", sort=alt.SortField("order"), title="channels in -> out")
            .axis(labelAngle=-60, labelOverlap=True),
            y=alt.Y("size:N", sort=alt.SortField("area"), title="input, height x width"),
            color=alt.Color("latency_ms:Q", title="ms")
            .scale(type="log", scheme="viridis")
            .legend(format=".3~g"),
            tooltip=_tooltips("op_spec", "latency_ms", "ci_percent"),
        )
        .add_params(chosen)
        .transform_filter(chosen)
    )  # fmt: skip
    return _finished(chart, height=max(160, 26 * len({row["size"] for row in rows})))


def roofline(rows: Rows, launch_floor_ms: float) -> dict[str, Any]:
    """Measured latency over the roofline's, or over the operations.

    Args:
        rows: with ``kind``, ``bound_ms`` or ``gmacs``, ``latency_ms``, ``op_spec``.
        launch_floor_ms: what an empty kernel takes, drawn as a line; 0 draws none.
    """
    import altair as alt

    has_bound = all(row.get("bound_ms") for row in rows)
    field, title = (
        ("bound_ms", "roofline latency, ms")
        if has_bound
        else ("gmacs", "multiply-accumulates, billions")
    )
    points = (
        _chart(rows)
        .mark_point(filled=True, size=32, opacity=0.7)
        .encode(
            x=alt.X(f"{field}:Q", title=title, scale=_log()).axis(format="~g", tickCount=5),
            y=alt.Y("latency_ms:Q", title="measured latency, ms", scale=_log()).axis(
                format="~g", tickCount=5
            ),
            color=_kinds("kind", rows, "operator"),
            tooltip=_tooltips("op_spec", "latency_ms", field, "gmacs_per_s"),
        )
    )
    layers = [points]
    values = [row[field] for row in rows]
    if has_bound:
        ends = [{field: end, "latency_ms": end} for end in (min(values), max(values))]
        layers.append(
            _chart(ends)
            .mark_line(color=_LINE, strokeDash=[4, 3])
            .encode(x=f"{field}:Q", y="latency_ms:Q")
        )
    if launch_floor_ms > 0:
        layers.append(
            _chart([{"latency_ms": launch_floor_ms, "what": "an empty kernel"}])
            .mark_rule(color=_LIMIT, strokeDash=[2, 2])
            .encode(y="latency_ms:Q", tooltip=_tooltips("what", "latency_ms"))
        )
    return _finished(alt.layer(*layers))


def agreement(rows: Rows) -> dict[str, Any]:
    """Measured over estimated latency of whole networks, with intervals and the line y = x.

    As in the picture of ``latlut validate --plot``: estimates that are too high lie below the line.

    Args:
        rows: with ``network``, ``measured_ms``, ``estimated_ms``, ``low_ms``, ``high_ms``, which
            may be None, ``error_percent`` and ``estimate``, the name of the series.
    """
    import altair as alt

    columns = ("measured_ms", "estimated_ms", "low_ms", "high_ms")
    both = [row[name] for row in rows for name in columns if row[name] is not None]
    margin = 0.04 * (max(both) - min(both)) or 0.05 * max(both)
    domain = [min(both) - margin, max(both) + margin]
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    x = alt.X("estimated_ms:Q", title="estimated latency, ms", scale=scale)
    y = alt.Y("measured_ms:Q", title="measured latency, ms", scale=scale)
    colour = _kinds("estimate", rows, "estimate")
    ideal = (
        _chart([{"measured_ms": end, "estimated_ms": end} for end in domain])
        .mark_line(color=_LINE)
        .encode(x=x, y=y)
    )
    with_bars = [row for row in rows if row["low_ms"] is not None]
    bars = (
        _chart(with_bars)
        .mark_rule(opacity=0.45)
        .encode(x=alt.X("low_ms:Q", scale=scale), x2="high_ms:Q", y=y, color=colour)
    )
    points = (
        _chart(rows)
        .mark_point(filled=True, size=36, opacity=0.8)
        .encode(x=x, y=y, color=colour, shape=_shapes("estimate", rows, "estimate"),
                tooltip=_tooltips("network", "measured_ms", "estimated_ms", "error_percent"))
    )  # fmt: skip
    return _finished(alt.layer(ideal, *([bars] if with_bars else []), points), height=360)


def residuals(rows: Rows) -> dict[str, Any]:
    """Relative errors of the networks of ``agreement``, over measured latency."""
    import altair as alt

    zero = _chart([{"error_percent": 0}]).mark_rule(color=_LINE).encode(y="error_percent:Q")
    points = (
        _chart(rows)
        .mark_point(filled=True, size=32, opacity=0.8)
        .encode(
            x=alt.X("measured_ms:Q", title="measured latency, ms").scale(zero=False, padding=12),
            y=alt.Y("error_percent:Q", title="error of the estimate, %"),
            color=_kinds("estimate", rows, "estimate"),
            shape=_shapes("estimate", rows, "estimate"),
            tooltip=_tooltips("network", "measured_ms", "estimated_ms", "error_percent"),
        )
    )
    return _finished(alt.layer(zero, points), height=180)


def ratios(rows: Rows) -> dict[str, Any]:
    """Latency in another table over that in the first, by the first's latency.

    Args:
        rows: with ``op_spec``, ``kind``, ``before_ms``, ``after_ms``, ``ratio``, ``moved``.
    """
    import altair as alt

    one = _chart([{"ratio": 1}]).mark_rule(color=_LINE).encode(y="ratio:Q")
    points = (
        _chart(rows)
        .mark_point(filled=True, size=30, opacity=0.7)
        .encode(
            x=alt.X("before_ms:Q", title="latency in the first table, ms", scale=_log())
            .axis(format="~g", tickCount=5),
            y=alt.Y("ratio:Q", title="ratio", scale=_log()).axis(format="~g", tickCount=5),
            color=_kinds("kind", rows, "operator"),
            tooltip=_tooltips("op_spec", "before_ms", "after_ms", "ratio"),
        )
    )  # fmt: skip
    return _finished(alt.layer(one, points))


def lines(
    rows: Rows, title: str, *, limit: float | None = None, is_log: bool = False, x: str = "epoch"
) -> dict[str, Any]:
    """Series over epochs.

    Args:
        rows: with ``epoch``, ``value`` and ``series``.
        title: of the vertical axis.
        limit: drawn as a horizontal line.
        is_log: a logarithmic vertical axis.
        x: title of the horizontal axis.
    """
    import altair as alt

    scale = _log() if is_log else alt.Scale(zero=False)
    chart = (
        _chart(rows)
        .mark_line(point=True)
        .encode(
            x=alt.X("epoch:Q", title=x).axis(tickMinStep=1, format="d"),
            y=alt.Y("value:Q", title=title, scale=scale),
            color=_kinds("series", rows, None),
            tooltip=_tooltips("series", epoch=x, value=title),
        )
    )
    if limit is None:
        return _finished(chart, height=220)
    line = _chart([{"value": limit}]).mark_rule(color=_LINE, strokeDash=[4, 3]).encode(y="value:Q")
    return _finished(alt.layer(line, chart), height=220)


def plane(rows: Rows, x: str, y: str, *, limit: float | None = None) -> dict[str, Any]:
    """Networks by latency and accuracy.

    Args:
        rows: with ``network``, ``x``, ``y``, ``series`` and, where known, ``low`` and ``high``, the
            interval of ``x``.
        x, y: titles of the axes.
        limit: a latency, drawn as a vertical line.
    """
    import altair as alt

    points = (
        _chart(rows)
        .mark_point(filled=True, size=70, opacity=0.85)
        .encode(
            x=alt.X("x:Q", title=x).scale(zero=False, padding=12),
            y=alt.Y("y:Q", title=y).scale(zero=False, padding=12),
            color=_kinds("series", rows, None),
            shape=_shapes("series", rows, None),
            tooltip=_tooltips("network", "series", x=x, y=y),
        )
    )
    layers: list[Any] = []
    if limit is not None:
        layers.append(
            _chart([{"x": limit}]).mark_rule(color=_LINE, strokeDash=[4, 3]).encode(x="x:Q")
        )
    with_bars = [row for row in rows if row.get("low") is not None]
    if with_bars:
        layers.append(
            _chart(with_bars)
            .mark_rule(opacity=0.5)
            .encode(x=alt.X("low:Q"), x2="high:Q", y="y:Q", color=_kinds("series", rows, None))
        )
    return _finished(alt.layer(*layers, points))


def bars(rows: Rows, title: str) -> dict[str, Any]:
    """Values by name, in the order of the rows, with ``name`` and ``value``."""
    import altair as alt

    chart = (
        _chart(rows)
        .mark_bar()
        .encode(
            x=alt.X("value:Q", title=title),
            y=alt.Y("name:N", sort=None, title=None),
            tooltip=_tooltips("name", value=title),
        )
    )
    return _finished(chart, height=22 * len(rows) + 20)


def _chart(rows: Rows) -> Any:
    import altair as alt

    return alt.Chart(alt.Data(values=[dict(row) for row in rows]))


def _log() -> Any:
    import altair as alt

    return alt.Scale(type="log")


def _kinds(field: str, rows: Rows, title: str | None) -> Any:
    """A colour for each value of a field, named below the figure."""
    import altair as alt

    names = _names(field, rows)
    colours = alt.Scale(domain=names, range=colours_of(names))
    return alt.Color(f"{field}:N", scale=colours, legend=_legend(names, title))


def _shapes(field: str, rows: Rows, title: str | None) -> Any:
    """A shape for each value of a field; a legend like that of its colours becomes one with it."""
    import altair as alt

    names = _names(field, rows)
    places = [_PLACES.get(name, number) for number, name in enumerate(names)]
    shapes = [_SHAPES[place % len(_SHAPES)] for place in places]
    scale = alt.Scale(domain=names, range=shapes)
    return alt.Shape(f"{field}:N", scale=scale, legend=_legend(names, title))


def _names(field: str, rows: Rows) -> list[str]:
    """The values of a field: those of a family in its order, then others in theirs."""
    found = list(dict.fromkeys(str(row[field]) for row in rows))
    return sorted(found, key=lambda name: _PLACES.get(name, len(_COLOURS)))


def _legend(names: Sequence[str], title: str | None) -> Any:
    import altair as alt

    if len(names) < 2:
        return None
    return alt.Legend(orient="bottom", columns=3, title=title, labelLimit=260, symbolOpacity=1)


def colours_of(names: Sequence[str]) -> list[str]:
    """A colour for each name: its own where it has one, else one that no other here has."""
    own = {
        name: _COLOURS[_PLACES[name]] if name in _PLACES else _KIND_COLOURS[name]
        for name in names
        if name in _PLACES or name in _KIND_COLOURS
    }
    free = [colour for colour in _COLOURS if colour not in own.values()] or _COLOURS
    others = [name for name in names if name not in own]
    found = own | {name: free[number % len(free)] for number, name in enumerate(others)}
    return [found[name] for name in names]


def _tooltips(*fields: str, **titles: str) -> list[Any]:
    """What is said of a point.

    Args:
        fields: shown under the names of ``labels.CHART``.
        titles: further fields, with what they are called.
    """
    import altair as alt

    texts = {"op_spec", "network", "what", "series", "name", "kind", "estimate"}
    named = {name: label(name, CHART) for name in fields} | titles
    return [
        alt.Tooltip(f"{name}:N", title=title)
        if name in texts
        else alt.Tooltip(f"{name}:Q", title=title, format=".4~g")
        for name, title in named.items()
    ]


def _finished(chart: Any, height: int = HEIGHT) -> dict[str, Any]:
    sized = chart.properties(width="container", height=height)
    spec: dict[str, Any] = sized.to_dict()
    spec.pop("config", None)
    return spec
