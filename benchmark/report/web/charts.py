"""What the charts of the page share: how they look, how their data are written, how the reader chooses lines.

A chart is a Vega-Lite specification (Satyanarayan et al. 2017, doi:10.1109/TVCG.2016.2599030) made with Altair, with
its data inside. Names are data in it, never field names or expressions.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.plots import GREY, INK, PALETTE, colours

if TYPE_CHECKING:
    import altair as alt

HEIGHT = 320
"""Pixels, of the charts of lines."""
LABEL_HEIGHT = 13
"""Pixels between labels at the ends of lines."""
DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2]]
"""The dashes of lines that share a colour, in their order."""
GUTTER = "clamp(0.3 * width, 104, 190)"
"""Pixels right of the lines, for their labels, as an expression."""
LIMIT = "width < 480 ? 90 : 160"
"""Pixels of a name in a legend, as an expression."""
CHOICE = "Click a name below the chart to show that line alone, and more with the shift key; or type a part of names."
"""How the reader chooses lines, for captions."""


def specification(
    layers: "Sequence[alt.Chart | Sequence[alt.Chart]]",
    parameters: "Sequence[alt.Parameter]" = (),
    height: int = HEIGHT,
    apart: bool = False,
    **datasets: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the Vega-Lite specification of a chart, as wide as the page.

    layers: drawn over each other; several together where they share an axis. parameters: what the reader chooses,
    besides selections. height: pixels. apart: whether each layer has a vertical axis of its own. datasets: the records
    of named data.

    Altair copies all layers and their data several times to layer them, and for each property that is added to a chart,
    so that is done here; and it validates nothing, which would take a third of a second for a chart. The tests have
    Vega-Lite draw them.
    """
    from altair import SCHEMA_URL

    written: Any = {"top_level": False, "datasets": datasets}
    spec: dict[str, Any] = {
        "$schema": SCHEMA_URL,
        "layer": [
            each.to_dict(validate=False, context=written)
            if not isinstance(each, Sequence)
            else {"layer": [layer.to_dict(validate=False, context=written) for layer in each]}
            for each in layers
        ],
        "datasets": datasets,
        "width": "container",
        "height": height,
    }
    if parameters:
        spec["params"] = [each.param.to_dict(validate=False) for each in parameters]  # type: ignore[union-attr]
    if apart:
        spec["resolve"] = {"scale": {"y": "independent"}}
    spec["config"] = {
        "font": 'system-ui, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif',
        "view": {"stroke": None},
        "axis": {
            "domainColor": GREY,
            "gridColor": "#E8E8E8",
            "labelColor": INK,
            "labelFontSize": 11,
            "tickColor": GREY,
            "titleColor": INK,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
        },
        "legend": {"labelColor": INK, "labelFontSize": 11, "titleColor": INK, "titleFontSize": 11},
        "text": {"color": INK, "fontSize": 11},
        # The chart has a label; one for each of its marks would be read out a thousand times.
        "mark": {"aria": False},
    }
    return spec


def table(columns: Mapping[str, Sequence[Any] | np.ndarray], digits: int = 5) -> "alt.InlineData":
    """Write columns of numbers as data of a chart, with so many significant digits; NaN is nothing."""
    import altair as alt

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*([_written(value, digits) for value in column] for column in columns.values())))
    return alt.InlineData(text.getvalue(), format=alt.CsvDataFormat(type="csv", parse=dict.fromkeys(columns, "number")))


def _written(value: float, digits: int) -> str:
    return "" if value != value else f"{value:.{digits}g}" if isinstance(value, float) else str(int(value))


def names(key: str, column: str, values: Sequence[str], **others: Sequence[Any]) -> "alt.LookupData":
    """Make the data by which a number in ``key`` is looked up: of the column with the values, and of others."""
    import altair as alt

    records = [
        {key: number, column: value} | {name: of_all[number] for name, of_all in others.items()}
        for number, value in enumerate(values)
    ]
    return alt.LookupData(data=alt.InlineData(values=records), key=key, fields=[column, *others])


def choice(name: str, label: str, options: Sequence[str]) -> "alt.Parameter":
    """Let the reader choose one of several options: the parameter is its number."""
    import altair as alt

    numbers = list(range(len(options)))
    return alt.param(name=name, value=0, bind=alt.binding_select(options=numbers, labels=list(options), name=label))


def constant(channel: Any, value: Any) -> Any:
    """Set a channel, such as alt.XValue, to a value: for alt.value() altair would hash its schemas, each time."""
    return channel(value)


def unless(channel: Any, value: Any, test: str, other: Any) -> Any:
    """Set a channel to a value, or to another where a test holds: alt.condition() would validate it, in 50 ms."""
    return channel(value, condition={"test": test, "value": other})


class Lines:
    """The lines of a chart: their colours, their legend, and the reader's choice among them.

    order: all lines of the report, which decide the colours; shown: those of the chart. Data have the number of a line
    among ``shown`` as ``line``.
    """

    def __init__(self, order: Sequence[str], shown: Sequence[str]) -> None:
        import altair as alt

        self.shown = list(shown)
        colour = colours(order)
        domain, place = self.shown, {line: number for number, line in enumerate(order)}
        dashes = [DASHES[place[line] // len(PALETTE) % len(DASHES)] for line in domain]
        # Two columns fit the screen of a telephone.
        legend = alt.Legend(
            orient="bottom",
            columns=alt.ExprRef("width < 480 ? 2 : width < 800 ? 3 : 4"),
            labelLimit=alt.ExprRef(LIMIT),
            symbolType="stroke",
            symbolStrokeWidth=3,
            symbolOpacity=1,
            title=None,
        )
        self.colour = alt.Color(
            "name:N", scale=alt.Scale(domain=domain, range=[colour[line] for line in domain]), legend=legend
        )
        self.dash = alt.StrokeDash("name:N", scale=alt.Scale(domain=domain, range=dashes), legend=legend)
        self.clicked = alt.selection_point(name="clicked", fields=["name"], bind="legend")
        self.typed = alt.param(name="typed", value="", bind=alt.binding(input="search", name="only lines with"))

    def chosen(self, chart: "alt.Chart") -> "alt.Chart":
        """Add the name of each line to the data, and leave out those that the reader did not choose."""
        return (
            chart.transform_lookup("line", from_=names("line", "name", self.shown))
            .transform_filter("indexof(lower(datum.name), lower(typed)) >= 0")
            .transform_filter(self.clicked)
        )


def right_of_labels(**scale: Any) -> "alt.Scale":
    """Make a horizontal scale that leaves room for labels at the right."""
    import altair as alt

    return alt.Scale(range=[0, alt.ExprRef(f"width - {GUTTER}")], **scale)


def end_labels(
    data: "alt.Chart", lines: Lines, x: "alt.X", y: "alt.Y", at_end: Sequence[str] = ()
) -> "list[alt.Chart]":
    """Label each line at its end, in layers for a chart of ``HEIGHT``, so that no name covers another.

    data: chosen, with the columns x, y and name. A line joins the end and the name. x, y: the encodings of the lines.
    at_end: other columns that x is of.
    """
    import altair as alt

    step = f"(datum.high - datum.low) * {LABEL_HEIGHT / HEIGHT}"
    up: list[alt.SortField | dict[str, str]] = [alt.SortField("y")]
    ends = (
        data.transform_joinaggregate(low="min(y)", high="max(y)")
        .transform_joinaggregate(end="max(x)", groupby=["name"])
        .transform_filter("datum.x === datum.end")
        .transform_aggregate(x="mean(x)", y="mean(y)", low="mean(low)", high="mean(high)", groupby=["name", *at_end])
        # Names are pushed up until they are apart, then down until the highest is inside.
        .transform_window(rank="row_number()", sort=up)
        .transform_calculate(push=f"datum.y - datum.rank * {step}")
        .transform_window(pushed="max(push)", sort=up, frame=[None, 0])
        .transform_joinaggregate(count="count()")
        .transform_calculate(
            at=f"min(datum.pushed + datum.rank * {step}, datum.high - (datum.count - datum.rank) * {step})"
        )
    )
    return labelled(ends, lines, "name", at=alt.Y("at:Q"), x=x, y=y)


def ranked_labels(
    data: "alt.Chart", lines: Lines, value: str, digits: int = 2, rising: bool = False
) -> "list[alt.Chart]":
    """List the lines at the right of a chart of ``HEIGHT``, each with a value, the highest first unless rising.

    data: chosen, one record for each line, with name and value.
    """
    import altair as alt

    ranked = data.transform_window(
        rank="row_number()", sort=[alt.SortField(value, order="ascending" if rising else "descending")]
    ).transform_calculate(text=f"format(datum.{value}, '.{digits}f') + '  ' + datum.name")
    scale = alt.Scale(domain=[0.5, HEIGHT / LABEL_HEIGHT], reverse=True)
    return labelled(ranked, lines, "text", at=alt.Y("rank:Q", scale=scale, axis=None))


def labelled(
    data: "alt.Chart", lines: Lines, text: str, at: "alt.Y", x: "alt.X | None" = None, y: "alt.Y | None" = None
) -> "list[alt.Chart]":
    """Write texts at the right, each at its height ``at`` behind a spot of its line's colour.

    x, y: where a line to it begins.
    """
    import altair as alt

    spot = data.mark_square(size=40, opacity=1).encode(
        x=constant(alt.XValue, alt.ExprRef(f"width - {GUTTER} + 12")), y=at, color=lines.colour
    )
    name = data.mark_text(align="left", baseline="middle", limit=alt.ExprRef(f"{GUTTER} - 20")).encode(
        x=constant(alt.XValue, alt.ExprRef(f"width - {GUTTER} + 20")), y=at, text=alt.Text(f"{text}:N")
    )
    if x is None or y is None:
        return [spot, name]
    leader = data.mark_rule(strokeWidth=0.7, opacity=0.6).encode(
        x=x, y=y, x2=constant(alt.X2Value, alt.ExprRef(f"width - {GUTTER} + 8")), y2=alt.Y2("at:Q"), color=lines.colour
    )
    return [leader, spot, name]
