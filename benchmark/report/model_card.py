"""The model card of an exported cell: README.md of a model on the Hugging Face hub, made from what the store knows."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from benchmark.common.errors import BenchError
from benchmark.common.text import display_name, visible
from benchmark.report.comparison import FEWEST_GROUPS, few_groups
from benchmark.report.latex import escape_latex
from benchmark.report.references import HARNESS, references
from benchmark.report.render import MISSING, escape, interval, percent
from benchmark.report.results import natural

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.data.card import Card
    from benchmark.store.store import Store

RESTRICTED = ("registration", "credentialed")
"""The access of data whose terms may hold for weights that were trained on them."""
LOADING = {
    "open_clip": """\
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms("local-dir:FOLDER")  # or "hf-hub:USER/NAME"
    tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")

With this harness: `bench eval --model open_clip:local-dir:FOLDER`.""",
    HARNESS: f"""\
    from pathlib import Path

    from benchmark.models.saved import load_model

    saved = load_model(Path("FOLDER"))
    saved.model.eval()  # encode_image(x), encode_text(tokens, mask): see benchmark.models.DualEncoder

With the command line: `bench eval --model hf:FOLDER`. It takes {HARNESS}: neither open_clip nor
transformers knows this layout.""",
}
"""How a folder of each layout is loaded, as Markdown."""


def model_card(store: "Store", key: str, checkpoint: str, layout: str, licence: str = "other") -> str:
    """Write the model card of a cell: a YAML header as the hub reads it, and the text.

    checkpoint: the name of the file of its weights. layout: of the folder, a key of ``LOADING``. licence: of the
    weights, as the hub names it; ``other`` leaves it to the reader of the data's licences.
    """
    from huggingface_hub import EvalResult, ModelCardData

    cell = store.description(key)
    label, recipe = cell["label"], cell["content"]
    rows = _rows_of(store, key)
    pretraining = _pretraining(store, recipe)
    name = _title(label)
    header = ModelCardData(
        license=licence,
        license_name="see-the-data" if licence == "other" else None,
        library_name=layout,
        pipeline_tag="zero-shot-image-classification" if layout == "open_clip" else None,
        tags=[display_name(label["method"]), "contrastive-learning", "image-text", HARNESS],
        datasets=[display_name(dataset) for dataset in pretraining],
        metrics=natural({row.metric for row in rows.itertuples()}) if len(rows) else None,
        model_name=name,
        eval_results=[
            EvalResult(
                task_type=row.task,
                task_name=row.task,
                dataset_type=display_name(row.dataset),
                dataset_name=display_name(row.dataset),
                dataset_split="test",
                metric_type=row.metric,
                metric_name=_metric_name(row),
                metric_value=round(float(row.value), 6),
            )
            for row in rows.itertuples()
        ]
        or None,
    )
    sections = [
        f"# {escape(name)}",
        _introduction(label, recipe, key, checkpoint),
        f"## How to load\n\n{LOADING[layout]}",
        f"## Method\n\n{_method(label['method'])}",
        f"## Data\n\n{_data(pretraining, recipe)}",
        f"## Settings\n\n{_settings(recipe, store.cost(key))}",
        f"## Scores\n\n{_scores(rows)}",
        f"## Limits\n\n{_limits(rows, pretraining, layout, recipe)}",
        f"## How to cite\n\n{_citation(rows, label, store.costs(), key)}",
    ]
    return f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metric_name(row: Any) -> str:
    """Write a metric with its part and its interval."""
    part = f"{row.part} " if row.part else ""
    between = "" if np.isnan(row.low) else f", 95 % interval {row.low:.4f} to {row.high:.4f}"
    return f"{part}{row.metric}{between}"


def restricted(store: "Store", key: str) -> list[str]:
    """List the pretraining datasets of a cell that not everyone may use, or whose access is not known here."""
    recipe = store.description(key)["content"]
    return [name for name, card in _pretraining(store, recipe).items() if _is_restricted(card)]


def _is_restricted(card: "Card | None") -> bool:
    return card is None or card.access is None or card.access in RESTRICTED


def _rows_of(store: "Store", key: str) -> "pd.DataFrame":
    """Select the primary scores of a cell, in the order of the tables."""
    rows = store.rows()
    if not len(rows):
        return rows
    rows = rows[(rows["cell"] == key) & rows["primary"].astype(bool) & rows["value"].notna()]
    order = {
        place: at for at, place in enumerate(natural({f"{r.task} {r.dataset} {r.part}" for r in rows.itertuples()}))
    }
    places = rows["task"] + " " + rows["dataset"] + " " + rows["part"].fillna("")
    return rows.assign(part=rows["part"].fillna(""), place=places.map(order)).sort_values(["place", "metric"])


def _pretraining(store: "Store", recipe: Mapping[str, Any]) -> "dict[str, Card | None]":
    """Find the card of each pretraining dataset; None where it is not here."""
    from benchmark.data.card import load_card

    opened = store.datasets()
    cards: dict[str, Card | None] = {}
    for name, _ in recipe.get("pretraining", []):
        try:
            cards[name] = load_card(opened[name]["card"] if name in opened else name)
        except BenchError:
            cards[name] = None
    return cards


def _title(label: Mapping[str, Any]) -> str:
    named = [label.get("arm") or label["method"], label.get("variant"), label["model"]]
    return display_name(f"{' · '.join(filter(None, named))}, seed {label['seed']}")


def _introduction(label: Mapping[str, Any], recipe: Mapping[str, Any], key: str, checkpoint: str) -> str:
    names = ", ".join(name for name, _ in recipe.get("pretraining", []))
    return escape(
        f"An image tower and a text tower with a joint space of {recipe['model']['embed_dim']} dimensions, pretrained "
        f"by the method {label['method']} on {names or 'pairs'}. Suite {label['suite']}, seed {label['seed']}; cell "
        f"{key}, {checkpoint} checkpoint of {HARNESS}. These are research weights of a benchmark, not a product."
    )


def _method(name: str) -> str:
    from benchmark.method import METHODS

    try:
        method = METHODS[name]
    except BenchError:
        return escape(f"{name}: of a plug-in that is not here.")
    source = f" Source: {method.source}." if method.source else ""
    return escape(f"{name}: {method.summary or 'no summary'}.{source}")


def _data(pretraining: "Mapping[str, Card | None]", recipe: Mapping[str, Any]) -> str:
    rows = []
    for name, card in pretraining.items():
        if card is None:
            rows.append([name, "no card here", MISSING, MISSING])
            continue
        access = {"embedded": "drawn in code"}.get(card.access or "", card.access or "not stated")
        rows.append([name, card.title or MISSING, card.licence or "not stated", access])
    lines = ["Pretraining pairs:", "", _table(["dataset", "title", "licence", "access"], rows)]
    start = [part.get("pretrained") for part in (recipe["model"]["image"], recipe["model"]["text"])]
    named = dict.fromkeys(str(each) for each in start if each)
    if recipe.get("initial"):
        lines += ["", escape(f"Training started from weights pretrained by this harness (cell {recipe['initial']}).")]
    elif named:
        lines += ["", escape(f"Training started from pretrained towers: {', '.join(named)}.")]
    citations = [f"{name}: {card.citation}" for name, card in pretraining.items() if card and card.citation]
    return "\n".join([*lines, *(["", *(f"- {escape(each)}" for each in citations)] if citations else [])])


def _settings(recipe: Mapping[str, Any], cost: Mapping[str, Any]) -> str:
    """Write model, method options and training as YAML, and what the training took."""
    shown = {name: recipe[name] for name in ("model", "options", "training") if recipe.get(name)}
    text = yaml.safe_dump(json.loads(json.dumps(shown, default=str)), sort_keys=False, allow_unicode=True, width=100)
    taken = [f"{cost['samples']:,} pairs"] if "samples" in cost else []
    taken += [f"{cost['seconds']:,.0f} s"] if "seconds" in cost else []
    machine = cost.get("machine") or {}
    taken += [str(machine.get("gpu") or machine.get("processor"))] if machine else []
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("torch", "transformers", "open_clip_torch") if name in machine
    )
    said = f"Training took {', '.join(taken)}" + (f" ({versions})" if versions else "") + "." if taken else ""
    return "\n".join([*(f"    {line}" for line in visible(text).splitlines()), "", escape(said)]).rstrip()


def _scores(rows: "pd.DataFrame") -> str:
    if not len(rows):
        return "Not evaluated."
    lines = [
        [
            row.task + (f", {row.part}" if row.part else ""),
            row.dataset,
            row.metric,
            percent(row.value),
            interval(row.low, row.high) or MISSING,
            percent(np.nan if row.chance is None else row.chance),
            f"{row.n:,}",
        ]
        for row in rows.itertuples()
    ]
    columns = ["task", "dataset", "metric", "score, %", "95 % interval", "chance, %", "test examples"]
    return (
        f"{_table(columns, lines)}\n\n"
        "Intervals are at 95 %, over the groups (patients) of the test examples, and hold for these weights: another "
        "seed of the same method may do better or worse. Scores are of the test splits as the dataset cards define "
        "them; probes are trained on the train split."
    )


def _limits(
    rows: "pd.DataFrame", pretraining: "Mapping[str, Card | None]", layout: str, recipe: Mapping[str, Any]
) -> str:
    from benchmark.method import METHODS

    limits = [
        "Not for clinical use: the scores say what a benchmark measures, on its test sets, and nothing about patients "
        "of other hospitals or devices.",
        "One seed. Which method is better is a question of several; the report of the benchmark answers it.",
    ]
    for name, card in pretraining.items():
        if card is None or card.access is None:
            limits.append(
                f"The terms of the pretraining data {name} are not known here: read them before you share this."
            )
        elif card.access in RESTRICTED:
            terms = f", licence: {card.licence}" if card.licence else ""
            limits.append(
                f"Trained on {name}, whose access is restricted ({card.access}{terms}). Its terms may hold for weights "
                "that were trained on it: read them before you pass these on. Weights can give training data away."
            )
    if recipe["model"]["tokenizer"]["kind"] == "corpus" and any(map(_is_restricted, pretraining.values())):
        limits.append("The tokenizer was trained on the pretraining texts: its files hold words of them.")
    few = [f"{row.task} on {row.dataset}: {too_few}" for row in rows.itertuples() if (too_few := _few_groups(row))]
    if few:
        limits.append(
            f"Intervals with fewer than {FEWEST_GROUPS} patients do not keep what they promise: {'; '.join(few)}."
        )
    unsure = [
        f"{row.task} on {row.dataset}" for row in rows.itertuples() if row.chance is not None and row.low <= row.chance
    ]
    if unsure:
        limits.append(f"The interval reaches chance: {'; '.join(dict.fromkeys(unsure))}.")
    method = recipe.get("method", "")
    if layout == "open_clip" and method in METHODS.names() and "late_interaction" in METHODS[method].abilities:
        limits.append(
            "Scores compare images and texts token by token; open_clip compares embeddings, with other scores."
        )
    return "\n".join(f"- {escape(limit)}" for limit in limits)


def _few_groups(row: Any) -> str:
    """Say that a score rests on too few groups; empty where there are enough, and where rows do not say."""
    groups = getattr(row, "effective_groups", np.nan)
    scarcest = getattr(row, "scarcest", None)
    return "" if np.isnan(groups) else few_groups(groups, np.nan if scarcest is None else scarcest)


def _citation(rows: "pd.DataFrame", label: Mapping[str, Any], costs: "pd.DataFrame", key: str) -> str:
    """Write BibTeX of method, data and libraries, as the report does."""
    import pandas as pd

    cited = rows if len(rows) else pd.DataFrame([{**label, "dataset": "", "task": ""}])
    own = costs[costs["cell"] == key] if len(costs) else costs
    entries = [line for line in references(cited, own, escape_latex).splitlines() if not line.startswith("%")]
    return "\n".join(f"    {visible(line)}".rstrip() for line in entries).strip("\n")


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(columns)]
    lines += [["---"] * len(lines[0]), *([display_name(text) for text in row] for row in rows)]
    return "\n".join(
        f"| {' | '.join(text if number == 1 else escape(text) for text in line)} |" for number, line in enumerate(lines)
    )
