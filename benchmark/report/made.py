"""How the results came about: settings of the arms, data, machines and versions, and the commands that repeat them."""

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchmark.common.errors import BenchError
from benchmark.report.render import MISSING, Cell, Sentence, Table
from benchmark.report.results import Results, natural, set_options

if TYPE_CHECKING:
    import pandas as pd

LONGEST_SETTING = 80
"""The most characters of a setting's value that tables show."""


def how_it_was_made(results: Results) -> Iterator[Table | Sentence]:
    """Tabulate settings, data and machines, and write the commands that repeat the runs."""
    yield from settings(results)
    yield from data(results)
    yield from machines(results)
    yield from commands(results)


def settings(results: Results) -> Iterator[Table]:
    """Tabulate the settings in which the lines differ, and those that all lines have."""
    cells = results.costs.drop_duplicates("line").set_index("line")["cell"] if len(results.costs) else {}
    of_lines: dict[str, dict[str, str]] = {}
    for line in results.methods:
        if line in cells and (configuration := results.configuration(str(cells[line]))):
            of_lines[line] = flattened({key: value for key, value in configuration.items() if key in CONFIGURED})
    if not of_lines:
        return
    names = list(dict.fromkeys(name for of_line in of_lines.values() for name in of_line))
    common = [name for name in names if len({of_line.get(name) for of_line in of_lines.values()}) == 1]
    varied = [name for name in names if name not in common]
    if varied:
        yield Table(
            "Settings that differ",
            [(line, "") for line in of_lines],
            [(name, [Cell(of_line.get(name, MISSING)) for of_line in of_lines.values()]) for name in varied],
            [],
            f"Of the first seed. {MISSING}: the method does not have it.",
            page_only=True,
        )
    first = next(iter(of_lines.values()))
    yield Table(
        "Settings of all lines" if len(of_lines) > 1 else "Settings",
        [("value", "")],
        [(name, [Cell(first[name])]) for name in common],
        [],
        "",
        page_only=True,
    )


CONFIGURED = ("method", "options", "training", "accumulation", "precision", "model", "initial")
"""What of a cell's configuration is settings; the rest is data, the seed, and hashes of code and files."""


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Write nested settings as one level, with dots in their names.

    >>> flattened({"training": {"betas": [0.9, 0.98]}, "initial": None})
    {'training.betas': '0.9, 0.98', 'initial': 'none'}
    """
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = _written(value)
    return flat


def _written(value: Any) -> str:
    if value is None or value == "":
        return "none"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= LONGEST_SETTING else f"{text[:LONGEST_SETTING]}…"


def data(results: Results) -> Iterator[Table]:
    """Tabulate the datasets: what they were used for, how many test examples and groups, access and licence."""
    rows = results.all_rows
    trained_on = {name for names in rows.get("pretraining", []) if isinstance(names, str) for name in names.split(", ")}
    tested = {str(name): of_dataset for name, of_dataset in rows.groupby("dataset")}
    of_datasets = []
    for name in natural({*tested, *trained_on} - {""}):
        of_dataset = tested.get(name)
        tasks = natural(of_dataset["task"].unique()) if of_dataset is not None else []
        uses = [*(["pretraining"] if name in trained_on else []), *tasks]
        of_datasets.append((name, [Cell(", ".join(uses)), *_counts(of_dataset), *map(Cell, _terms(name))]))
    if of_datasets:
        header = [("used for", ""), ("test examples", "most"), ("groups", "most"), ("access", ""), ("licence", "")]
        caption = f"Groups: patients, or what else belongs together. {MISSING}: not stated, or the card is not here."
        yield Table("Data", header, of_datasets, [], caption, page_only=True)


def _counts(rows: "pd.DataFrame | None") -> list[Cell]:
    if rows is None:
        return [Cell(), Cell()]
    columns = [rows[name].max() if name in rows else 0 for name in ("n", "groups")]
    return [Cell(f"{int(count):,}") if count > 0 else Cell() for count in columns]


def _terms(name: str) -> tuple[str, str]:
    """Return the access to a dataset and its licence, as its card states them."""
    from benchmark.data.card import load_card

    try:
        card = load_card(name)
    except BenchError:
        return MISSING, MISSING
    embedded = "drawn in code" if card.access == "embedded" else card.access
    return embedded or MISSING, card.licence or MISSING


def machines(results: Results) -> Iterator[Table]:
    """Tabulate the machines and versions that the trainings ran with, and how many trainings each."""
    costs = results.all_costs
    if "machine" not in costs:
        return
    named = costs[costs["machine"].map(lambda machine: isinstance(machine, dict))]
    versions = named["version"] if "version" in named else [""] * len(named)
    described = [
        flattened(machine | {"contrastive-benchmark": version, "trained on": device})
        for machine, version, device in zip(named["machine"], versions, named.get("device", [""] * len(named)))
    ]
    distinct = [dict(each) for each in dict.fromkeys(tuple(each.items()) for each in described)]
    if not distinct:
        return
    names = list(dict.fromkeys(name for each in distinct for name in each))
    yield Table(
        "Machine and versions",
        [(f"machine {number}" if len(distinct) > 1 else "machine", "") for number in range(1, len(distinct) + 1)],
        [(name, [Cell(each.get(name, MISSING)) for each in distinct]) for name in names],
        [("trainings", [Cell(str(described.count(each))) for each in distinct])],
        "",
        page_only=True,
    )


def commands(results: Results) -> Iterator[Sentence]:
    """Write the commands that repeat the trainings and evaluations: one per suite, model, data and settings."""
    rows = results.rows
    baseline = rows["role"].isin(["baseline", "model"]) if "role" in rows else rows["value"].isna()
    own = rows[~baseline].astype({"variant": object}).fillna({"variant": "", "pretraining": "", "model": ""})
    keys = [key for key in ("suite", "model", "pretraining", "variant") if key in own]
    for key, of_run in own.groupby(keys, sort=False) if len(own) else ():
        named = dict(zip(keys, key))
        arms, tasks = natural(of_run["arm"].unique()), natural(of_run["task"].unique())
        words = ["bench", "run", "--suite", named["suite"], "--methods", ",".join(arms), "--tasks", ",".join(tasks)]
        words += ["--datasets", ",".join(natural(of_run["dataset"].unique()))]
        words += ["--seeds", str(of_run["seed"].nunique())]
        words += ["--model", named["model"]] if named.get("model") else []
        if named.get("pretraining"):
            words += ["--pretraining", ",".join(named["pretraining"].split(", "))]
        words += set_options(named.get("variant", ""), arms[0])
        yield Sentence("To repeat the runs:", page_only=True, command=shlex.join(words))
