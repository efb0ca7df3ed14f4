"""The run configuration: a suite's YAML, overridden by the command line, validated as a whole."""

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.common.errors import BenchError
from benchmark.config.overrides import _budget, _parse_axis, _parse_setting
from benchmark.config.schema import RunConfig, _set, validated
from benchmark.config.yaml_files import find_config, read_yaml


def load_run_config(
    suite: str,
    flags: Mapping[str, Any],
    settings: Iterable[str],
    known: Iterable[str],
    budget: str | None = None,
    grid: Iterable[str] = (),
    conditions: Sequence[float] = (),
) -> RunConfig:
    """The configuration of a run.

    suite: a name or a path. flags: fields that the command line gave (None: not given).
    settings: ``section.key=value`` texts of ``--set``; a section is training, evaluation, model, or one of ``known``,
    the names of methods and tasks. budget: the text of ``--budget``, samples=200k. grid: ``section.key=value,value``
    texts of ``--grid``, whose product is run. conditions: of the suite's scenario, in place of its own. Raises
    ``BenchError`` naming the file or the setting, and the nearest valid key.
    """
    path = find_config("suite", suite)
    content = _located({"suite": path.stem} | read_yaml(path), path.parent)
    content.update({key: value for key, value in flags.items() if value is not None})
    if conditions:
        content["scenario"] = content["scenario"] | {"conditions": list(conditions)}
    content["required"] = [name for key in ("pretraining", "datasets") for name in flags.get(key) or ()]
    overrides = {}
    options = {key: f"--{key.replace('_', '-')}" for key, value in flags.items() if value is not None}
    given = [(f"--set {setting}", setting) for setting in settings]
    if budget:
        given.append((f"--budget {budget}", _budget(budget)))
    for option, setting in given:
        section, key, value = _parse_setting(setting, known)
        _set(content, section, key, value)
        overrides[f"{section}.{key}"] = value
        options[f"{section}.{key}"] = option
    axes = []
    for axis in grid:
        name, values = _parse_axis(axis, known)
        axes.append([(name, value) for value in values])
    points = [dict(point) for point in itertools.product(*axes)]
    config: RunConfig = validated(RunConfig, content | {"overrides": overrides, "grid": points}, str(path), options)
    if config.scenario:
        varied = "datasets" if config.scenario.plain.dataset else "pretraining"
        if flags.get(varied):
            raise BenchError(f"--{varied}: scenario '{config.scenario.name}' sets it, as that is what it varies")
    return config


def _located(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The paths of YAML files that a suite names are relative to the suite's own file."""

    def locate(name: Any) -> Any:
        return str(folder / name) if isinstance(name, str) and re.search(r"\.ya?ml(@|$)", name) else name

    for part in (content, _plain(content)):
        for key in ("model", "pretraining", "datasets", "dataset"):
            value = part.get(key)
            if value is not None:
                part[key] = [locate(name) for name in value] if isinstance(value, list) else locate(value)
    return content


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    scenario = content.get("scenario")
    plain = scenario.get("plain") if isinstance(scenario, dict) else None
    return plain if isinstance(plain, dict) else {}


def results_folder() -> Path:
    """Where runs go unless told otherwise: $BENCH_RESULTS, or results in the current folder."""
    return Path(os.environ.get("BENCH_RESULTS", "results"))
