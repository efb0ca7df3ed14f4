"""The rules by which results judge a claim, and the words of a verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmark.common.errors import plural
from benchmark.config.claims import Claim, Cost, Gain, Level, NoGain
from benchmark.report.comparison import FEWEST_SEEDS, SIGNIFICANT, points
from benchmark.report.render import MISSING
from benchmark.report.runs import Column

SUPPORTED, CONTRADICTED, NOT_SHOWN, NOT_RUN = "supported", "contradicted", "not shown", "not run"
ONE_SEED = "One seed says nothing about other seeds."
FEW_SEEDS = f"A verdict on a method needs {FEWEST_SEEDS} seeds."


@dataclass(frozen=True)
class Measured:
    """What the results say of a claim: a difference, a level or a ratio, as a fraction, with its 95 % interval.

    other: the arm that the claim's ``a`` is compared with; "" for a level. p: two-sided, of no difference. An end is
    NaN where it is not known. seeds: those that count. too_few: why the test set is too small for a verdict. columns:
    what the value is a mean over, each with its own.
    """

    other: str
    value: float
    low: float
    high: float
    p: float = math.nan
    seeds: int = 0
    examples: int = 0
    too_few: str = ""
    columns: Mapping[Column, "Measured"] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim at one setting (a model, and what the command line overrides; "" for the suite's own).

    measured: the comparison that decides; None where nothing was run. all_measured: with each of the other arms.
    why: one or two sentences. command: what would run the missing part; "" where nothing is missing.
    """

    suite: str
    name: str
    claim: Claim
    setting: str
    verdict: str
    measured: Measured | None
    why: str
    command: str = ""
    all_measured: Sequence[Measured] = ()

    @property
    def label(self) -> str:
        """The name of the claim, and of the setting if it is not the suite's own."""
        return f"{self.name} · {self.setting}" if self.setting else self.name

    @property
    def sentence(self) -> str:
        """What is claimed, by whom, what was measured, and what follows."""
        return f"{self.label}, {self.verdict}: “{self.claim.text}” ({self.claim.source}). {self.why}"


def verdict_on(claim: Claim, measured: Sequence[Measured]) -> tuple[str, Measured, str]:
    """Judge what was measured: the verdict, the comparison that decides, and why.

    A claim is contradicted where the whole interval lies outside what it states. It is supported where the whole
    interval lies within, or, for a stated size, where a gain is shown and the interval is not wholly below that size.
    Fewer than three seeds decide nothing.
    """
    if not measured:
        return NOT_RUN, Measured("", math.nan, math.nan, math.nan), ""
    judgements = [judged(claim, each) for each in measured]
    if len(measured) > 1:
        from benchmark.evaluation.statistics import holm

        # Among many equals, one is soon better by luck.
        adjusted = holm([each.p if each.seeds >= FEWEST_SEEDS else math.nan for each in measured])
        luck = f"With Holm's correction for {len(measured)} comparisons, neither is shown to be higher."
        judgements = [
            (NOT_SHOWN, luck) if one[0] == CONTRADICTED and not p < SIGNIFICANT else one
            for one, p in zip(judgements, adjusted)
        ]
    order = [CONTRADICTED, NOT_SHOWN, SUPPORTED]
    first = min(range(len(judgements)), key=lambda i: (order.index(judgements[i][0]), measured[i].value))
    return judgements[first][0], measured[first], judgements[first][1]


def judged(claim: Claim, measured: Measured) -> tuple[str, str]:
    """Judge one comparison: the verdict, and why."""
    low, high = 100 * measured.low, 100 * measured.high
    if not isinstance(claim, Cost) and measured.seeds < FEWEST_SEEDS:
        return NOT_SHOWN, ONE_SEED if measured.seeds == 1 else FEW_SEEDS
    if measured.too_few:
        return NOT_SHOWN, f"{measured.too_few.capitalize()}."
    if math.isnan(low) or math.isnan(high):
        if isinstance(claim, Cost):
            return NOT_SHOWN, f"{claim.b} has none, or it was not recorded."
        return NOT_SHOWN, "There is no interval: other test examples, or fewer than six groups (patients)."
    if isinstance(claim, Gain):
        return _judged_gain(claim, low, high)
    if isinstance(claim, NoGain):
        return _judged_no_gain(claim, low, high)
    if isinstance(claim, Level):
        if low > claim.above:
            return SUPPORTED, f"The whole interval is above {claim.above:g} %."
        if high < claim.above:
            return CONTRADICTED, f"The whole interval is below {claim.above:g} %."
        return NOT_SHOWN, f"The interval includes {claim.above:g} %."
    decimals = len(f"{claim.at_most:g}".partition(".")[2])
    if round(high, decimals) <= claim.at_most:
        return SUPPORTED, f"The claim is at most {claim.at_most:g} %."
    if round(low, decimals) > claim.at_most:
        return CONTRADICTED, f"The claim is at most {claim.at_most:g} %."
    return NOT_SHOWN, f"The interval includes {claim.at_most:g} %."


def _judged_no_gain(claim: NoGain, low: float, high: float) -> tuple[str, str]:
    size = f"of {plural_points(claim.margin)} " if claim.margin else ""
    if high < claim.margin or high <= 0:
        return SUPPORTED, f"A gain {size}or more is excluded." if size else "A gain is excluded."
    if low > claim.margin:
        return CONTRADICTED, f"A gain {size}or more is shown." if size else "A gain is shown."
    if low > 0:
        return NOT_SHOWN, f"A gain is shown, but the interval includes the margin of {plural_points(claim.margin)}."
    return NOT_SHOWN, "The interval includes both no gain and " + (f"one {size}or more." if size else "a gain.")


def _judged_gain(claim: Gain, low: float, high: float) -> tuple[str, str]:
    size = f"the stated {plural_points(claim.at_least)}"
    if high < 0:
        return CONTRADICTED, "A loss is shown."
    if high < claim.at_least:
        return CONTRADICTED, f"{'A gain is shown, but' if low > 0 else 'Any gain is'} less than {size}."
    if low <= 0:
        both = f"no gain and {size}" if claim.at_least else "0"
        return NOT_SHOWN, f"The interval includes {both}."
    if claim.at_most is not None and low > claim.at_most:
        return SUPPORTED, f"The gain is larger than stated ({stated_by(claim)})."
    if claim.at_least:
        return (
            SUPPORTED,
            f"A gain is shown, and {'it is at least' if low >= claim.at_least else 'the interval includes'} {size}.",
        )
    return SUPPORTED, "A gain is shown."


def measured_sentence(claim: Claim, measured: Measured) -> str:
    """Say in a sentence what was measured."""
    value = 100 * measured.value
    known = not math.isnan(measured.low)
    if isinstance(claim, Cost):
        between = f" (95 % interval {100 * measured.low:.1f} to {100 * measured.high:.1f} %)"
        interval = between if known and not claim.is_count else ""
        return f"{claim.a} has {value:.1f} % of the {claim.column} of {measured.other}{interval}."
    scope = [f"95 % interval {interval_of(claim, measured)}"] if known else []
    scope += [measure_of(claim, measured)]
    datasets = {dataset for _, dataset, _ in measured.columns}
    scope.append(f"mean over {len(datasets)} datasets" if len(datasets) > 1 else f"on {next(iter(datasets))}")
    scope += [plural(measured.seeds, "seed"), plural(measured.examples, "test example")]
    if isinstance(claim, Level):
        return f"{claim.a} reaches {value:.1f} % ({'; '.join(scope)})."
    more = "more" if value >= 0 else "less"
    return f"{claim.a} scores {abs(value):.1f} points {more} than {measured.other} ({'; '.join(scope)})."


def plural_points(number: float) -> str:
    """Write a number of points.

    >>> plural_points(1.0), plural_points(2.5)
    ('1 point', '2.5 points')
    """
    return f"{number:g} point{'' if number == 1 else 's'}"


def measure_of(claim: Claim, measured: Measured | None) -> str:
    """Name what is measured: a column of the costs, or tasks with their metrics."""
    if isinstance(claim, Cost):
        return claim.column
    metrics: dict[str, dict[str, None]] = {task: {} for task in claim.tasks}
    for task, _, metric in measured.columns if measured else ():
        metrics[task][metric] = None
    named = [f"{task} {' or '.join(of_task)}".strip() for task, of_task in metrics.items()]
    return ", ".join(named) + (f", {claim.part}" if claim.part else "")


def stated_by(claim: Claim) -> str:
    """Write what a claim states, in points or percent."""
    if isinstance(claim, NoGain):
        return f"below {claim.margin:+g}" if claim.margin else "not above 0"
    if isinstance(claim, Level):
        return f"above {claim.above:g} %"
    if isinstance(claim, Cost):
        return f"at most {claim.at_most:g} %"
    if claim.at_most is not None:
        return f"{claim.at_least:+g} to {claim.at_most:+g}"
    return f"{claim.at_least:+g} or more" if claim.at_least else "above 0"


def value_text(claim: Claim, fraction: float) -> str:
    """Write a measured value: in percent, or in points with the sign."""
    if math.isnan(fraction):
        return MISSING
    return f"{100 * fraction:.1f} %" if isinstance(claim, Cost | Level) else points(fraction)


def interval_of(claim: Claim, measured: Measured) -> str:
    """Write the interval of a measured value; "" where it is not known, and for counts, which have none."""
    if math.isnan(measured.low) or (isinstance(claim, Cost) and claim.is_count):
        return ""
    ends = (measured.low, measured.high)
    low, high = (f"{100 * x:.1f}" if isinstance(claim, Cost | Level) else points(x) for x in ends)
    return f"{low} to {high}"
