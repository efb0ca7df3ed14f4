"""What is said below a table of scores."""

import pandas as pd

from benchmark.report.scores import at_edges


def test_what_was_chosen_at_the_end_of_what_was_tried_is_said() -> None:
    columns = ["line", "dataset", "cell", "evaluation", "part", "metric"]
    labelled = pd.DataFrame(
        [
            ("clip", "derm", "c", "low", "", "accuracy"),
            ("clip", "derm", "c", "low", "", "ece"),
            ("clip", "derm", "c2", "low", "", "accuracy"),
            ("msd", "derm", "c3", "low", "", "accuracy"),
            ("msd", "derm", "c4", "high", "", "accuracy"),
            ("msd", "cxr", "c5", "inside", "", "accuracy"),
        ],
        columns=columns,
    )
    edge = {"low": {"strength": 1e-5}, "high": {"strength": 10.0}, "inside": {}}
    said = at_edges(labelled, lambda cell, key: {"": {"at_edge": edge[key]}})
    assert said.endswith("one beyond might be better: derm, strength 10 (msd); derm, strength 1e-05 (clip, msd).")
    assert at_edges(labelled, lambda *_: {}) == ""
