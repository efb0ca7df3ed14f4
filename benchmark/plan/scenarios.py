"""Scenarios of any dataset: a class made rare, or few images to learn from."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from benchmark.common.errors import BenchError, cut, unknown
from benchmark.data.card import load_card

N = TypeVar("N", int, float)


def of_dataset(text: str) -> dict[str, Any]:
    """Return the fields of a suite that a ``--scenario`` such as ``rare:ham10000.melanoma=0.01,0.1`` replaces.

    A set with texts is trained on at each condition; one without gives the labels that probes learn from. Either way
    the test images stay the same. Raises ``BenchError`` for an unknown kind, dataset or class, and for values that are
    no numbers.
    """
    option = f"--scenario {cut(text)}"
    kind, _, rest = text.partition(":")
    if kind == "rare":
        return _rare(rest, option)
    if kind == "small":
        return _small(rest, option)
    raise unknown("scenario of a dataset", kind, ["rare", "small"])


def _rare(rest: str, option: str) -> dict[str, Any]:
    match = re.fullmatch(r"(.+?\.ya?ml|[^.=]+)\.(?!ya?ml(?:=|$))([^=]+)(?:=([^=]+))?", rest)
    if not match:
        raise BenchError(
            f"{option}: expected a dataset, one of its classes and shares, as in rare:ham10000.melanoma=0.01"
        )
    reference, name, shares = match[1], match[2], match[3] or "0.01"
    card = load_card(reference)
    if name not in (card.classes or []):
        raise BenchError(f"{option}: {unknown(f'class of {card.name}', name, card.classes or [])}")
    if unsuitable := set("@/") & set(name):
        raise BenchError(f"{option}: a class with {min(unsuitable)} in its name: write cards with 'keep' instead")
    conditions = _numbers(shares, float, f"{option}: expected shares after the =, as in rare:ham10000.melanoma=0.01")
    scenario = {
        "name": f"rare:{card.name}.{name}",
        "question": f"How well is {name} recognised where few images to learn from show it, and what happens to the "
        "other classes?",
        "varies": f"kept share of the images of {name} to learn from",
        "setting": f"keep.{name}",
    }
    return _posed(option, scenario, reference, conditions, 1, rarest=min(conditions))


def _small(rest: str, option: str) -> dict[str, Any]:
    reference, _, numbers = rest.partition("=")
    conditions = _numbers(
        numbers, int, f"{option}: expected numbers of images after the =, as in small:ham10000=256,1024"
    )
    scenario = {
        "name": f"small:{load_card(reference).name}",
        "question": "What do few images to learn from cost?",
        "varies": "number of images to learn from",
        "setting": "n",
    }
    return _posed(option, scenario, reference, conditions, "all")


def _numbers(text: str, kind: type[N], otherwise: str) -> list[N]:
    """Read numbers with commas between. Raises ``BenchError`` with the message ``otherwise``."""
    try:
        return [kind(number) for number in text.split(",")]
    except ValueError as error:
        raise BenchError(otherwise) from error


def _posed(
    option: str,
    scenario: dict[str, Any],
    reference: str,
    conditions: Sequence[float],
    plain: int | str,
    rarest: float | None = None,
) -> dict[str, Any]:
    """Make the fields of a suite. plain: the condition of the whole set. rarest: the smallest share of a rare class."""
    card = load_card(reference)

    def at(condition: float) -> str:
        return f"{reference}@{scenario['setting']}={condition}"

    for condition in conditions:
        try:
            load_card(at(condition))
        except BenchError as error:
            raise BenchError(f"{option}: {error}") from error
    first = [at(conditions[0])]
    scenario = scenario | {"condition": conditions[0], "conditions": list(conditions)}
    if "text" in card.provides:
        tested = reference if rarest is None else at(rarest)
        scenario["plain"] = {"condition": plain, "pretraining": [reference]}
        return {"scenario": scenario, "pretraining": first, "datasets": [tested], "required": first}
    # Where a class is rare, not the set itself: the class is then reported apart from the others here too.
    scenario["plain"] = {"condition": plain, "dataset": reference if rarest is None else at(1)}
    return {"scenario": scenario, "datasets": first, "required": first}
