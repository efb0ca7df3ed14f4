"""Check what a task returned, before it is resampled and stored: every number is finite and within its range."""

import json
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real

import numpy as np

from benchmark.common.errors import BenchError, PlugInError, cut, described, said
from benchmark.evaluation.measurement import Measurement, Metric, draws_of
from benchmark.evaluation.statistics import range_of

TOLERANCE = 1e-9
"""How far beyond its range a number may be, by rounding."""


def checked(returned: object, title: str) -> list[Measurement]:
    """Collect the measurements that a task's evaluate() returned. title: the task and the dataset, for messages.

    Raises ``BenchError`` in one line for what is no measurement, for columns that do not fit together, for a metric,
    chance, majority, blind guess or ceiling that is not a finite number within the metric's range, and for notes that
    JSON cannot hold. Metrics that the examples do not define are left out and named in the notes.
    """
    if not isinstance(returned, Iterable) or isinstance(returned, Mapping | str):
        raise BenchError(f"{title}: evaluate() must yield measurements, found {_kind(returned)}")
    measurements: list[Measurement] = []
    for each in returned:
        if not isinstance(each, Measurement):
            raise BenchError(f"{title}: evaluate() must yield measurements, found {described(each)}")
        if each.part in {other.part for other in measurements}:
            raise BenchError(f"{title}: evaluate() yielded two measurements of part {described(each.part)}")
        _check(each, f"{title}, {each.part}" if each.part else title)
        measurements.append(each)
    if not measurements:
        raise BenchError(f"{title}: evaluate() yielded no measurement")
    if not any(each.metrics or _unmeasured(each) for each in measurements):
        raise BenchError(f"{title}: evaluate() yielded no metric")
    return measurements


def _kind(value: object) -> str:
    return "a Measurement: write yield" if isinstance(value, Measurement) else described(value)


def _unmeasured(measurement: Measurement) -> bool:
    """Return whether the notes say why metrics are missing."""
    return bool(measurement.notes.get("undefined") or measurement.notes.get("missing"))


def _check(measurement: Measurement, title: str) -> None:
    for name in ("examples", "metrics", "chance", "majority", "blind", "ceiling", "notes"):
        if not isinstance(part := getattr(measurement, name), Mapping):
            raise BenchError(f"{title}: {name} must be a mapping, found {described(part)}")
    _check_columns(measurement.examples, title)
    for name, metric in measurement.metrics.items():
        if not isinstance(name, str) or not callable(metric):
            raise BenchError(
                f"{title}: metrics must be functions of the examples by name, found {described(metric)} as {name!r}"
            )
        for of_draw in draws_of(metric):
            try:
                value: object = of_draw(measurement.examples)
            except BenchError as error:
                raise BenchError(f"{title}: metric '{name}': {error}") from error
            except Exception as error:
                raise PlugInError(f"{title}: metric '{name}' failed: {said(error)}") from error
            _check_number(value, of_draw, f"{title}: metric '{name}'", UNDEFINED)
    for name, what, value in _guesses(measurement):
        _check_number(value, measurement.metrics.get(name), f"{title}: {what} of metric {name!r}", "")
    try:
        json.dumps(measurement.notes, default=_plain)
    except (TypeError, ValueError) as error:
        raise BenchError(f"{title}: notes must be what JSON can hold: {cut(str(error))}") from error


UNDEFINED = "; leave out a metric that these examples do not define, and name it in notes['undefined']"


def _check_columns(columns: Mapping[str, np.ndarray], title: str) -> None:
    for name in ("id", "group"):
        if name not in columns:
            raise BenchError(f"{title}: the examples have no column '{name}'")
    count = len(columns["id"])
    if not count:
        raise BenchError(f"{title}: there are no examples")
    for name, values in columns.items():
        if not (isinstance(values, np.ndarray) and values.ndim and len(values) == count):
            raise BenchError(
                f"{title}: column {name!r} of the examples must be an array of {count} values, as many as 'id' has, "
                f"found {described(values)}"
            )


def _guesses(measurement: Measurement) -> Iterator[tuple[str, str, object]]:
    """Iterate over the numbers beside the metrics: the name of the metric, what it is, and the number."""
    named = {"chance": measurement.chance, "majority": measurement.majority, "the ceiling": measurement.ceiling}
    for what, values in (named | dict(measurement.blind)).items():
        yield from ((name, what, value) for name, value in values.items())


def _check_number(value: object, metric: Metric | None, what: str, instead: str) -> None:
    if not isinstance(value, Real | np.bool_):
        raise BenchError(f"{what} must be a number, found {described(value)}")
    number = float(value)
    if not np.isfinite(number):
        raise BenchError(f"{what} is {number}, which is no finite number{instead if np.isnan(number) else ''}")
    lowest, highest = range_of(metric)
    if not lowest - TOLERANCE <= number <= highest + TOLERANCE:
        raise BenchError(
            f"{what} is {number:g}, outside its range of {lowest:g} to {highest:g}; correct it, or state its range: "
            "Mean(column, lowest=..., highest=...)"
        )


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
