import re
import struct

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgba

from benchmark.report.comparison import default_reference
from benchmark.report.costs import quality_and_cost
from benchmark.report.plots import PALETTE, colours, cost_chart, duration_ticks, pareto, save, score_chart, staircase
from benchmark.report.results import label_lines
from benchmark.report.scores import summarise
from tests.report.fakes import DATASETS, synthetic
from tests.report.reading import assert_legible, texts


def prepared(rows, costs):
    rows, costs, lines = label_lines(rows, costs)
    return summarise(rows), rows, costs, lines


@pytest.mark.parametrize(("methods", "datasets"), [(1, 1), (2, 5), (12, 12)])
def test_texts_neither_overlap_nor_leave_the_page(methods, datasets):
    rows, costs = synthetic(methods, datasets, seeds=2)
    scores, rows, costs, lines = prepared(rows[rows["task"] == "few_shot"], costs)
    assert_legible(score_chart(scores, "few_shot", lines))
    assert_legible(cost_chart(*quality_and_cost(scores, rows, costs)[:2], lines))


def test_long_names_do_not_overlap():
    rows, costs = synthetic(3, 4, seeds=1)
    for frame in (rows, costs):
        frame["variant"] = "momentum=0.9, queue_size=16384, alpha=0.4, training.batch_size=512"
    rows["dataset"] = rows["dataset"].replace(DATASETS[1], "name_" * 12)
    scores, rows, costs, lines = prepared(rows, costs)
    assert_legible(score_chart(scores, "vqa", lines))
    assert_legible(cost_chart(*quality_and_cost(scores, rows, costs)[:2], lines))


def test_bars_intervals_chance_and_values_are_the_scores():
    rows, costs = synthetic(2, 3, seeds=1)
    scores, *_, lines = prepared(rows[(rows["dataset"] != DATASETS[2]) | (rows["method"] == "msd")], costs)
    figure = score_chart(scores, "vqa", lines)
    panels = {ax.get_title("left"): ax for ax in figure.axes}
    assert sorted(panels) == sorted(DATASETS[:3])
    for dataset, ax in panels.items():
        own = scores[(scores["task"] == "vqa") & (scores["dataset"] == dataset)].set_index("line").reindex(lines)
        (bars,) = (c for c in ax.collections if isinstance(c, PolyCollection))
        ends = np.array([bar.vertices[:4, 0] for bar in bars.get_paths()])
        np.testing.assert_allclose(ends[:, 1:3], 100 * own[["value", "value"]].to_numpy())
        assert (ends[:, [0, 3]] == 0).all()
        assert [*map(tuple, bars.get_facecolors())] == [to_rgba(colours(lines)[line]) for line in lines]
        for collection in (c for c in ax.collections if isinstance(c, LineCollection)):
            ends = np.array([path.vertices[:, 0] for path in collection.get_paths()])
            np.testing.assert_allclose(ends, 100 * own[["low", "high"]].to_numpy())
        assert {line.get_xdata()[0] for line in ax.lines} == {100 * own["chance"].mean()}
        assert [text.get_text() for text in ax.texts] == [f"{100 * x:.1f}" if x == x else "—" for x in own["value"]]
        assert [text.get_weight() == "bold" for text in ax.texts] == [x is True for x in own["best"]]
        assert ax.get_xlim()[0] == 0
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["clip", "msd"]


def test_the_best_guess_without_the_images_takes_the_place_of_chance():
    rows, costs = synthetic(2, 1, seeds=1)
    rows = rows.assign(blind=[{"question only": 0.9, "same question": 0.4}] * len(rows))
    scores, *_, lines = prepared(rows, costs)
    figure = score_chart(scores, "vqa", lines)
    assert {line.get_xdata()[0] for line in figure.axes[0].lines} == {90.0}
    assert any("dashed: the best guess without the images" in text for text, _ in texts(figure))


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_chart_of_costs_says_what_one_seed_holds_for(seeds):
    rows, costs = synthetic(2, 1, seeds=seeds)
    scores, rows, costs, lines = prepared(rows, costs)
    drawn = texts(cost_chart(*quality_and_cost(scores, rows, costs)[:2], lines))
    assert any("for these weights" in text for text, _ in drawn) == (seeds == 1)


def test_the_metric_is_named_once_or_on_each_panel():
    rows, costs = synthetic(2, 2, seeds=1)
    scores, *_, lines = prepared(rows, costs)
    assert "vqa: accuracy in percent" in [text.split(",")[0] for text, _ in texts(score_chart(scores, "vqa", lines))]
    titles = [ax.get_title("left") for ax in score_chart(scores, "few_shot", lines).axes]
    assert titles == ["phantom_chest\nmacro_auroc", "phantom_mammo\naccuracy"]


def test_a_line_has_one_colour_in_all_plots():
    rows, costs = synthetic(4, 2, seeds=1)
    scores, rows, costs, lines = prepared(rows[(rows["task"] == "vqa") | (rows["method"] != "clip")], costs)
    assert len({*PALETTE}) == len(PALETTE) == 12
    expected = dict(zip(lines, PALETTE))
    few = score_chart(scores, "few_shot", lines)  # without clip
    (bars,) = (c for c in few.axes[0].collections if isinstance(c, PolyCollection))
    assert [to_hex(colour).upper() for colour in bars.get_facecolors()] == [expected[x] for x in lines if x != "clip"]
    points, pairs, _ = quality_and_cost(scores, rows, costs)
    figure = cost_chart(points, pairs, lines)
    markers = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    by_time = points.sort_values("seconds").index
    assert [to_hex(marker.get_facecolor()[0]).upper() for marker in markers] == [expected[line] for line in by_time]


def test_quality_is_the_mean_over_kinds_of_the_mean_over_datasets():
    rows, costs = synthetic(3, 4)
    scores, rows, costs, _ = prepared(rows[(rows["task"] != "vqa") | (rows["dataset"] == DATASETS[0])], costs)
    points, pairs, left_out = quality_and_cost(scores, rows, costs)
    assert len(pairs) == 4 * 4 + 1
    assert left_out == []
    for line, point in points.iterrows():
        own = scores[scores["line"] == line]
        kinds = [own.loc[own["task"] == task, "value"].mean() for task in own["task"].unique()]
        assert point["score"] == pytest.approx(sum(kinds) / 5)
        assert point["seconds"] == pytest.approx(costs.loc[costs["method"] == line, "seconds"].mean())


def test_a_line_that_lacks_a_result_or_a_cost_is_not_in_the_plot():
    rows, costs = synthetic(3, 2)
    missing = (rows["method"] == "msd") & (rows["task"] == "vqa") & (rows["dataset"] == DATASETS[0])
    scores, rows, costs, _ = prepared(rows[~missing], costs[costs["method"] != "siglip"])
    points, pairs, left_out = quality_and_cost(scores, rows, costs)
    assert list(points.index) == ["clip"]
    assert left_out == ["msd"]
    assert len(pairs) == 10


def test_an_evaluation_of_another_kind_has_the_cost_of_its_cell():
    """The store gives cells a variant of their own; evaluating them with other options adds to the rows' variant."""
    rows, costs = synthetic(1, 2)
    scores, rows, costs, _ = prepared(pd.concat([rows, rows.assign(variant="vqa.steps=5")]), costs)
    points, _, _ = quality_and_cost(scores, rows, costs)
    assert list(points.index) == ["clip", "clip · vqa.steps=5"]
    assert points["seconds"].nunique() == 1


def test_without_costs_there_is_nothing_to_plot():
    rows, _ = synthetic(2, 2)
    scores, rows, costs, _ = prepared(rows, pd.DataFrame())
    points, pairs, left_out = quality_and_cost(scores, rows, costs)
    assert len(points) == len(pairs) == len(left_out) == 0


def test_a_marker_is_as_large_as_the_memory():
    rows, costs = synthetic(3, 1, seeds=1)
    scores, rows, costs, lines = prepared(rows, costs.assign(peak_memory=[1e9, 4e9, None]))
    figure = cost_chart(*quality_and_cost(scores, rows, costs)[:2], lines)
    clip, msd, unknown = (c for c in figure.axes[0].collections if isinstance(c, PathCollection))
    assert msd.get_sizes()[0] == pytest.approx(4 * clip.get_sizes()[0])
    assert len(unknown.get_facecolor()) == 0
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["Pareto frontier", "1.00 GB peak memory", "4.00 GB peak memory"]


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=8, unique=True))
def test_the_frontier_is_what_nothing_beats(points):
    points = sorted(points, key=lambda point: (point[0], -point[1]))
    time, score = np.array(points, dtype=float).T
    beaten = [any(t <= x and s >= y and (t, s) != (x, y) for t, s in points) for x, y in points]
    assert list(~pareto(time, score)) == beaten


def test_the_frontier_is_drawn_to_the_edges_of_the_plot():
    corners = staircase(np.array([1.0, 3.0]), np.array([5.0, 7.0]), right=9.0, bottom=2.0)
    assert corners.tolist() == [[1, 2], [1, 5], [3, 5], [3, 7], [9, 7]]
    assert staircase(np.array([1.0]), np.array([5.0]), 9.0, 2.0).tolist() == [[1, 2], [1, 5], [9, 5]]


@pytest.mark.parametrize(("log", "largest"), [(False, 200), (True, 1e5)])
@given(data=st.data())
def test_duration_ticks_are_few_and_inside(log, largest, data):
    low = data.draw(st.floats(1, 1e5))
    high = low * data.draw(st.floats(5.0 if log else 1.01, largest))
    ticks = duration_ticks(low, high, log)
    assert len(ticks) <= 7
    assert ticks or not log
    size = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    for x, text in ticks.items():
        number, unit = text.split()
        assert low * (1 - 1e-9) <= x <= high * (1 + 1e-9)
        assert float(number) * size[unit] == pytest.approx(x, rel=1e-4)


def test_duration_ticks_are_round():
    assert list(duration_ticks(38, 64, log=False).values()) == ["40 s", "50 s", "60 s"]
    assert list(duration_ticks(25, 4000, log=True).values()) == ["30 s", "1 min", "3 min", "10 min", "30 min", "1 h"]


def test_png_and_svg_are_written_with_text_as_text(tmp_path):
    rows, costs = synthetic(2, 1, seeds=1)
    name = "<b>&$x$"
    scores, *_, lines = prepared(rows.assign(method=rows["method"].replace("msd", name)), costs)
    png, svg = save(score_chart(scores, "vqa", lines), tmp_path / "plots" / "vqa")
    assert (png.name, svg.name) == ("vqa.png", "vqa.svg")
    width, height = struct.unpack(">II", png.read_bytes()[16:24])
    assert width == 1440
    assert height > 100
    written = re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))
    assert {"clip", "&lt;b&gt;&amp;$x$", DATASETS[0]} <= set(written)
    again = save(score_chart(scores, "vqa", lines), tmp_path / "again")[1]
    assert again.read_bytes() == svg.read_bytes()


def test_a_task_that_one_method_alone_can_do_leaves_the_others_in():
    rows, costs = synthetic(3, 2)
    written = rows[(rows.task == "vqa") & (rows.method == "msd")].assign(
        task="captioning", metric="rouge_l", value=0.99
    )
    rows, costs, _ = label_lines(pd.concat([rows, written], ignore_index=True), costs)
    scores = summarise(rows)
    points, pairs, left_out = quality_and_cost(scores, rows, costs)
    assert sorted(points.index) == ["clip", "msd", "siglip"]
    assert "captioning" not in {task for task, _ in pairs}
    assert left_out == []
    best = scores[scores.task != "captioning"].groupby("line").value.mean().idxmax()
    assert default_reference(scores.assign(baseline=False)) == best
