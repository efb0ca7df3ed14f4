"""The study holds what its table promises, and the documentation shows the table of this study."""

from pathlib import Path

import pytest
from scipy import stats

from tests.simulation.__main__ import promise
from tests.simulation.study import Setting, outcome, settings

PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"
CERTAINTY = 0.999
"""That a share which is in the promised range is not taken to be outside, in each of some 100 settings."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting", [each for each in settings() if each.promised], ids=lambda each: f"{each.section}: {each.name}"
)
def test_coverage_is_as_promised(setting: Setting) -> None:
    """By the binomial error of the repetitions; answers within one are counted as one, which makes the error wider."""
    found = outcome(setting)
    covered = round(next(iter(found.shares.values())) * setting.repetitions)
    lowest, highest = setting.promised or (0, 1)
    assert covered >= stats.binom.ppf(1 - CERTAINTY, setting.repetitions, lowest)
    assert covered <= stats.binom.ppf(CERTAINTY, setting.repetitions, highest)


def test_the_page_shows_each_setting() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    shown = {(cells[0].removeprefix("| "), cells[1], cells[-1].removesuffix(" |")) for cells in rows}
    missing = [
        f"{each.section}: {each.name}"
        for each in settings()
        if (each.name, f"{each.repetitions}", promise(each)) not in shown
    ]
    assert missing == [], "print the table anew: python -m tests.simulation"


def test_settings_have_names_of_their_own() -> None:
    names = [(each.section, each.name) for each in settings()]
    assert len(names) == len(set(names))
