"""Load the configuration of a run: a suite's YAML, overridden by the command line, validated as a whole."""

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.common.errors import BenchError, cut, shortened
from benchmark.config.overrides import parse_axis, parse_budget, parse_setting
from benchmark.config.schema import RunConfig, set_key
from benchmark.config.training import BUDGETS
from benchmark.config.validation import EXPECTED, validated
from benchmark.config.yaml_files import find_config, read_yaml


def load_run_config(
    suite: str,
    flags: Mapping[str, Any],
    settings: Iterable[str],
    known: Iterable[str],
    budget: str | None = None,
    grid: Iterable[str] = (),
    conditions: Sequence[float] = (),
    replaced: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Load a suite and apply the command line's overrides.

    suite: a name or a path. flags: fields that the command line sets; None for one that it does not.
    settings: ``section.key=value`` texts of ``--set``; a section is training, evaluation, model, an arm of the suite,
    or one of ``known``, the names of methods and tasks. budget: the text of ``--budget``, samples=200k. grid:
    ``section.key=value,value`` texts of ``--grid``, whose product is run. conditions: of the suite's scenario, in place
    of its own. replaced: fields in place of the suite's, which ``flags`` override. Raises ``BenchError`` naming the
    file or the setting, and the nearest valid key.
    """
    path = find_config("suite", suite)
    fields, where = read_suite(path)
    fields = {"suite": path.stem} | fields
    flags = {key: value for key, value in flags.items() if value is not None}
    fields.update(replaced or {})
    fields.update(flags)
    if conditions:
        fields["scenario"] = fields["scenario"] | {"conditions": list(conditions)}
    fields["required"] = [name for key in ("pretraining", "datasets") for name in flags.get(key, ())]
    fields["required"] += (replaced or {}).get("required", ())
    _check_blocks(fields, _BLOCKS, where)
    known = [*known, *fields.get("arms", {})]
    overrides = {}
    options = {key: f"--{key.replace('_', '-')}" for key in flags}
    from_options = [(f"--set {cut(setting)}", setting) for setting in settings]
    if budget:
        from_options.append((f"--budget {cut(budget)}", parse_budget(budget)))
    for option, setting in from_options:
        section, key, value = parse_setting(setting, known)
        set_key(fields, section, key, value)
        overrides[f"{section}.{key}"] = value
        options[f"{section}.{key}"] = option
    axes = []
    for axis in grid:
        name, values = parse_axis(axis, known)
        axes.append([(name, value) for value in values])
    points = [dict(point) for point in itertools.product(*axes)]
    if "pretraining" in points[0] and flags.get("pretraining"):
        raise BenchError("--pretraining and --grid pretraining: give one of them")
    if "pretraining" in points[0]:
        sets = dict.fromkeys(name for point in points for name in point["pretraining"].split("+"))
        fields["pretraining"] = list(sets)
        fields["required"] += list(sets)
    config = validated(RunConfig, fields | {"overrides": overrides, "grid": points}, where, options)
    if config.scenario:
        varied = "datasets" if config.scenario.plain.dataset else "pretraining"
        if flags.get(varied) or varied in points[0]:
            raise BenchError(f"--{varied}: scenario '{config.scenario.name}' varies it, so it cannot be set")
    return config


_BLOCKS: dict[str, Any] = {
    "training": {},
    "evaluation": {},
    "model_options": {},
    "options": {"*": {}},
    "arms": {"*": {"options": {}, "training": {}, "stages": {"*": {}}}},
}
"""The mappings of a suite that --set puts a key into, with those within them; * is any name."""


def _check_blocks(fields: Mapping[str, Any], blocks: Mapping[str, Any], where: str, outer: str = "") -> None:
    """Raise ``BenchError`` where a suite has something else in the place of a mapping that --set could change."""
    for name, inner in blocks.items():
        for key in fields if name == "*" else fields.keys() & {name}:
            if not isinstance(fields[key], Mapping):
                found = shortened(fields[key])
                raise BenchError(f"{where}: {outer}{key}: {EXPECTED['dict_type']}, found {found}")
            _check_blocks(fields[key], inner, where, f"{outer}{key}.")


def read_suite(path: Path) -> tuple[dict[str, Any], str]:
    """Read a suite and the suites that it extends. Returns the keys and values, and the files, as a message names them.

    ``extends: demo``, or a path relative to the suite's own file, takes over the keys of another suite: mappings are
    merged key by key, everything else is replaced, a null removes the key that it overrides, and a budget replaces a
    budget of another kind. Raises ``BenchError`` naming the file for a parent that does not exist and for a cycle.
    """
    suites = []
    files = [path]
    while True:
        suite = _located(read_yaml(files[-1]), files[-1].parent)
        parent = suite.pop("extends", None)
        suites.append(suite)
        if parent is None:
            break
        file = _parent_file(parent, files[-1])
        if file.resolve() in [each.resolve() for each in files]:
            circle = " -> ".join(str(each) for each in [*files, file])
            raise BenchError(f"{files[-1]}: extends: a cycle: {circle}")
        files.append(file)
    merged: dict[str, Any] = suites[-1]
    for suite in reversed(suites[:-1]):
        merged.pop("suite", None)
        if any(kind in _mapping(suite, "training") for kind in BUDGETS):
            training = _mapping(merged, "training")
            merged["training"] = {key: value for key, value in training.items() if key not in BUDGETS}
        merged = _merged(merged, suite)
    return merged, " extends ".join(map(str, files))


def _parent_file(parent: Any, child: Path) -> Path:
    if not isinstance(parent, str):
        raise BenchError(
            f"{child}: extends: expected the name of a suite or the path of its YAML, found {shortened(parent)}"
        )
    name = str(child.parent / parent) if parent.endswith((".yaml", ".yml")) else parent
    try:
        return find_config("suite", name)
    except BenchError as error:
        raise BenchError(f"{child}: extends: {error}") from error


def _merged(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the child's keys into the parent's, mapping by mapping."""
    merged = dict(parent)
    for key, value in child.items():
        if isinstance(value, dict) and isinstance(parent.get(key), dict):
            merged[key] = _merged(parent[key], value)
        elif value is None and key in parent:
            del merged[key]
        else:
            merged[key] = value
    return merged


def _located(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of YAML files that a suite names relative to the suite's own file."""

    def locate(name: Any) -> Any:
        return str(folder / name) if isinstance(name, str) and re.search(r"\.ya?ml(@|$)", name) else name

    for part in (fields, _mapping(_mapping(fields, "scenario"), "plain")):
        for key in ("model", "pretraining", "validation", "datasets", "dataset"):
            value = part.get(key)
            if value is not None:
                part[key] = [locate(name) for name in value] if isinstance(value, list) else locate(value)
    return fields


def _mapping(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the mapping under a key; {} for any other value, which the validation reports."""
    value = fields.get(key)
    return value if isinstance(value, dict) else {}


def results_folder() -> Path:
    """Return where runs are stored by default: $BENCH_RESULTS, or results in the current folder."""
    return Path(os.environ.get("BENCH_RESULTS", "results"))
