"""Parse the command line's overrides of a suite."""

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

from benchmark.common.errors import BenchError, cut, unknown
from benchmark.config.schema import SECTIONS
from benchmark.config.training import BUDGETS, Training
from benchmark.config.validation import unknown_key
from benchmark.config.yaml_files import config_names, parse_yaml


def scenarios() -> dict[str, str]:
    """Return the suites of the shipped scenarios, by their names for --scenario."""
    return {name.removeprefix("scenario-"): name for name in config_names("suite") if name.startswith("scenario-")}


OF_ANY_DATASET = {
    "rare:SET.CLASS=0.01": "any dataset with classes: a share of the training images with one of them is kept",
    "small:SET=256,1024": "any dataset: so many images of it to learn from",
}
"""Scenarios that any dataset can be put in, as --scenario takes them, and what they do; see benchmark.plan.scenarios.

SET is a dataset's name, or the path of its card.
"""


def parse_scenario(text: str) -> tuple[str, list[float]]:
    """Parse ``--scenario`` into a suite and the conditions to run: noisy=0.1,0.5 -> scenario-noisy, [0.1, 0.5]."""
    name, equals, values = text.partition("=")
    if name not in scenarios():
        raise unknown("scenario", name, [*scenarios(), *OF_ANY_DATASET])
    try:
        conditions = [float(value) for value in values.split(",")] if equals else []
    except ValueError as error:
        raise BenchError(f"--scenario {cut(text)}: expected numbers after the =, as in noisy=0.1,0.5") from error
    return scenarios()[name], conditions


def parse_setting(setting: str, known: Iterable[str]) -> tuple[str, str, Any]:
    """Parse ``--set section.key=value`` into section, key and value; known: the names of arms, methods and tasks."""
    section, key, text = _parse_name(f"--set {cut(setting)}", setting, [*SECTIONS, "model", *known])
    return section, key, _number(parse_yaml(text, f"--set {cut(setting)}"))


def parse_axis(axis: str, known: Iterable[str]) -> tuple[str, list[Any]]:
    """Parse ``--grid section.key=value,value`` into ``section.key`` and its values.

    ``pretraining=a,b+c`` gives sets to pretrain on, those of one value joined by +; ``budget=samples=10k,40k`` gives
    amounts of ``training.samples``.
    """
    name, equals, text = axis.partition("=")
    if name == "pretraining" and equals:
        sets = [value.strip() for value in text.split(",") if value.strip("+ ")]
        if not sets:
            raise BenchError(
                f"--grid {cut(axis)}: no values; expected for example pretraining=phantom-cxr,phantom-derm"
            )
        return name, sets
    if name == "budget" and equals:
        kind, _, amounts = text.partition("=")
        budgets = [parse_budget(f"{kind}={amount}", "--grid budget=") for amount in amounts.split(",")]
        key = budgets[0].partition("=")[0]
        return key, [parse_yaml(budget.partition("=")[2], f"--grid {cut(axis)}") for budget in budgets]
    section, key, text = _parse_name(f"--grid {cut(axis)}", axis, ["training", *known])
    values = parse_yaml(f"[{text}]", f"--grid {cut(axis)}")
    if not values:
        raise BenchError(f"--grid {cut(axis)}: no values; expected for example training.batch_size=64,512")
    return f"{section}.{key}", [_number(value) for value in values]


def _parse_name(where: str, setting: str, sections: Iterable[str]) -> tuple[str, str, str]:
    name, equals, text = setting.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise BenchError(f"{where}: expected section.key=value, for example training.batch_size=512")
    if section not in sections:
        raise unknown(f"section of {where.split()[0]}", section, sections)
    part, _, setting = key.partition(".")
    if section in SECTIONS:
        _check_key(SECTIONS[section], section, key)
    if part == "training" and setting:
        _check_key(Training, f"{section}.training", setting)
    return section, key, text


def _check_key(block: type[BaseModel], section: str, key: str) -> None:
    """Raise ``BenchError`` if a block has no such key, and for a key of one of its values, which are set as a whole."""
    whole, _, inner = key.partition(".")
    if inner and whole in block.model_fields:
        raise BenchError(f"{section}.{key}: set {whole} as a whole, as in '{section}.{whole}={{{inner}: ...}}'")
    if key not in block.model_fields:
        raise unknown_key(block, section, key)


def _number(value: Any) -> Any:
    if isinstance(value, str):
        # YAML 1.1 reads 1e-3 as a string: it requires a dot before the exponent.
        with suppress(ValueError):
            return float(value)
    return value


UNITS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_budget(text: str, option: str = "--budget ") -> str:
    """Turn a budget into a setting of the training: samples=200k -> training.samples=200000.

    option: what a message names before the text.
    """
    kind, equals, amount = text.partition("=")
    if not equals:
        raise BenchError(f"{option}{cut(text)}: expected one of {', '.join(BUDGETS)} and an amount, as in samples=200k")
    if kind not in BUDGETS:
        raise unknown(f"kind of {option.strip('= ')}", kind, BUDGETS)
    number = re.fullmatch(r"(\d+\.?\d*(?:e[+-]?\d+)?)([a-zA-Z]?)", amount.strip())
    units = [unit for unit in UNITS if (unit in "smhd") == (kind == "time") or not unit]
    value = float(number[1]) * UNITS[number[2]] if number and number[2] in units else math.inf
    if not math.isfinite(value):
        example = {"time": "time=10m", "flops": "flops=2P"}.get(kind, f"{kind}=200k")
        expected = f"a positive number, alone or with a unit ({', '.join(filter(None, units))}), as in {example}"
        raise BenchError(f"{option}{cut(text)}: expected {expected}")
    return f"training.{kind}={round(value) if kind in ('samples', 'steps') else value}"
