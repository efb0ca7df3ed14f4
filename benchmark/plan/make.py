"""What a run would do: its cells, its evaluations, and what speaks against it. Nothing is trained or encoded."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmark.common.errors import BenchError, unknown
from benchmark.config.augmentation import Augmentation
from benchmark.config.schema import RunConfig, Training, validated
from benchmark.data.card import load_card
from benchmark.data.dataset import Dataset
from benchmark.evaluation.external import elsewhere, from_card, is_elsewhere
from benchmark.evaluation.fixed import baselines
from benchmark.method import METHODS
from benchmark.models import ModelCard, build_model, build_tokenizer
from benchmark.models.card import CorpusTokenizer
from benchmark.models.tower import LanguageModelTower
from benchmark.plan.plan import EVALUATION_FORMAT, FORMAT, Cell, Language, Pair, Plan
from benchmark.plan.resolve import (
    NOT_FOUND,
    _Datasets,
    _meant,
    _methods,
    check_settings,
    method_options,
    resolve_device,
    resolve_model,
    task_options,
)
from benchmark.plan.tuned import tuned
from benchmark.store.cache import cache_root
from benchmark.store.hashing import source_of
from benchmark.task import TASKS
from benchmark.training.accumulation import accumulation_mode
from benchmark.training.schedule import precision_of


def make_plan(config: RunConfig, cache: Path | None = None) -> Plan:
    """Resolve every name of a configuration; raises ``BenchError`` for an unknown one."""
    cache = cache or cache_root()
    plain = config.scenario.plain.dataset if config.scenario else None
    if plain and plain not in config.datasets:
        config = config.model_copy(update={"datasets": [plain, *config.datasets]})
    datasets = _Datasets(config, cache)
    config, absent = _with_what_is_there(config, datasets)
    methods = _methods(config)
    model = resolve_model(config)
    for name, given in config.options.items():
        if name not in METHODS.names() and name not in TASKS.names():
            raise unknown("method or task under options", name, [*METHODS.names(), *TASKS.names()])
        # Those of what is not in this run, too: a suite's slip is found by the first run, not by another one.
        if name in METHODS.names():
            method_options(name, given)
        if name in TASKS.names():
            task_options(name, given)
    trained_on = {condition: datasets.open(names) for condition, names in config.trained_on().items()}
    plain_condition, first = next(iter(trained_on.items()))
    pairs, left_out = _able(methods, config.tasks, *_pairs(config, datasets, absent))
    device = resolve_device(config.device)
    corpus: list[str] = []
    if isinstance(model.tokenizer, CorpusTokenizer):
        corpus = datasets.open(model.tokenizer.datasets) or first
    initial = _initial_cell(config, model, datasets, corpus, device) if model.init and model.init.method else None
    language = _language(model, datasets, corpus)
    cells = []
    for point in config.grid:
        for name in point:
            if name.split(".")[0] not in ("training", *METHODS.names()):
                raise BenchError(f"--grid {name}: only settings of the training and of methods can be varied")
        for seed, name in product(config.seeds, methods):
            at = (tuned(config, name) if config.tuned else config).at(point, "--grid")
            options = method_options(name, at.options.get(name, {}))
            conditions = {
                condition: _cell(
                    at, model, datasets, corpus, device, name, options, at.training, sets, seed, initial, language
                )
                for condition, sets in trained_on.items()
            }
            plain_key = conditions[plain_condition].key
            cells += [replace(cell, condition=condition, plain=plain_key) for condition, cell in conditions.items()]
    # A setting of one method makes no further cells of the others.
    cells = list({cell.key: cell for cell in cells}.values())
    plan = Plan(
        config,
        model,
        device,
        datasets.opened,
        corpus,
        initial,
        cells,
        pairs,
        language=language,
        plain_dataset=datasets.open([plain])[0] if plain else "",
        left_out=left_out,
        absent=absent,
    )
    fixed = {k: v for k, v in config.overrides.items() if k.startswith("model.")}
    label = {"suite": config.suite, "model": model.name, "variant": ", ".join(f"{k}={v}" for k, v in fixed.items())}
    for seed in config.seeds:
        found = baselines(model, datasets.fingerprints(corpus), initial.key if initial else None, label, seed)
        plan.starts[seed] = found[0].key
        plan.given += found if config.baselines else []
    unmet = _unmet(plan)
    reasons = list(dict.fromkeys(reason for of_cell in unmet.values() for reason in of_cell))
    if config.methods == ["all"]:
        plan.cells = [cell for cell in plan.cells if cell.key not in unmet]
        plan.left_out += reasons
        reasons = []
    plan.problems = reasons + _problems(plan)
    return plan


def evaluation_plan(config: RunConfig, spec: str, cache: Path | None = None) -> Plan:
    """The plan that trains nothing and evaluates a model that was trained elsewhere and its baselines, by the
    configuration's tasks, datasets and seeds. spec: as elsewhere() reads it, or a model card's name or path.
    """
    other = elsewhere(spec) if is_elsewhere(spec) else None
    if other is None:
        config = config.model_copy(update={"model": spec})
    config = config.model_copy(update={"methods": []})
    check_settings(config)
    plan = make_plan(config.model_copy(update={"baselines": True}), cache)
    starts, plan.starts = set(plan.starts.values()), {}
    if other is None:
        plan.given = [from_card(plan.model, x, config.suite) if x.key in starts else x for x in plan.given]
    else:
        plan.given = [
            given
            for seed in config.seeds
            for given in (other.given(seed, config.suite), *other.baselines(seed, config.suite))
        ]
    if not config.baselines:
        plan.given = [given for given in plan.given if given.label["role"] == "model"]
    return plan


def _cell(
    config: RunConfig,
    model: ModelCard,
    datasets: _Datasets,
    corpus: list[str],
    device: torch.device,
    method: str,
    options: dict[str, Any],
    training: Training,
    pretraining: list[str],
    seed: int,
    initial: Cell | None,
    language: "Language | None" = None,
) -> Cell:
    mode = accumulation_mode(METHODS[method], training)
    numbers = training.model_dump(exclude={"accumulation", "precision", "checkpoint_every"})
    content = {
        "format": FORMAT,
        "method": method,
        "source": source_of(METHODS[method]),
        "options": options,
        "training": numbers | {"accumulation": mode, "precision": precision_of(training, device)},
        "model": model.model_dump(exclude={"title", "init"}),
        "tokenizer_data": datasets.fingerprints(corpus),
        "initial": initial.key if initial else None,
        "pretraining": datasets.fingerprints(pretraining),
        "seed": seed,
    }
    if language and _reads(method, options):
        content["language_model"] = language.content
    given = {
        k: v
        for k, v in config.overrides.items()
        if k.split(".")[0] in ("training", "model")
        or (k.startswith(f"{method}.") and _meant(k.split(".")[1], method, METHODS, TASKS))
    }
    variant = ", ".join(f"{k.removeprefix(method + '.')}={v}" for k, v in given.items())
    label = {"suite": config.suite, "model": model.name, "method": method, "variant": variant, "seed": seed}
    label["pretraining"] = ", ".join(pretraining)
    return Cell(method, options, training, tuple(pretraining), seed, content, label)


def _initial_cell(
    config: RunConfig, model: ModelCard, datasets: _Datasets, corpus: list[str], device: torch.device
) -> Cell:
    """The training of the initial weights, by the model's card alone: no setting of a run changes them."""
    init = model.init
    assert init is not None
    assert init.method is not None
    training = validated(Training, init.training, f"model '{model.name}', init.training")
    options = method_options(init.method, {})
    names = datasets.open(init.datasets)
    as_suite = config.model_copy(update={"overrides": {}})
    return _cell(as_suite, model, datasets, corpus, device, init.method, options, training, names, 0, None)


def _reads(method: str, options: dict[str, Any]) -> bool:
    """Whether the method's text tower is a language model."""
    cls = METHODS[method]
    return "language_model" in cls.needs_of(cls.Config(**options))


def _language(model: ModelCard, datasets: _Datasets, corpus: list[str]) -> "Language | None":
    if model.init is None or model.init.language_model is None:
        return None
    spec = model.init.language_model
    others = set(datasets.opened)
    names = datasets.open(spec.datasets)
    content = {
        "format": FORMAT,
        "language_model": spec.model_dump(),
        "text": model.text.model_dump(),
        "tokenizer": model.tokenizer.model_dump(),
        "tokenizer_data": datasets.fingerprints(corpus),
        "texts": datasets.fingerprints(names),
    }
    return Language(spec, tuple(names), frozenset(names) - others, content)


def _with_what_is_there(config: RunConfig, datasets: _Datasets) -> tuple[RunConfig, list[str]]:
    """The configuration with those of the suite's datasets that are on this machine and have rows, and a line for each
    of the others.

    Raises ``BenchError`` when one must be there, or none is left to pretrain on or to evaluate on.
    """
    absent: dict[str, str] = {}
    kept: dict[str, list[str]] = {}
    for key in ("pretraining", "datasets"):
        kept[key] = []
        for reference in getattr(config, key):
            if reference in config.required or not (reason := datasets.unusable(reference)):
                kept[key].append(reference)
            else:
                absent[load_card(reference).name] = reason
        if not kept[key]:
            what = "to pretrain on" if key == "pretraining" else "to evaluate on"
            raise BenchError(f"suite {config.suite}: nothing {what} is found here; missing: {', '.join(absent)}")
    if absent and config.strict:
        names = (name if reason == NOT_FOUND else f"{name} ({reason})" for name, reason in absent.items())
        raise BenchError(f"suite {config.suite}, --strict: not found here: {', '.join(names)}; see bench data how NAME")
    lines = [f"{name}: {reason}; bench data how {name}" for name, reason in absent.items()]
    return config.model_copy(update=kept), lines


def _pairs(config: RunConfig, datasets: _Datasets, absent: list[str]) -> tuple[list[Pair], list[str]]:
    """The pairs that the selectors name: ``all``, ``kind`` or ``kind:dataset``. A kind that no dataset is there for is
    left out where datasets are ``absent``.
    """
    suite = datasets.open(config.datasets)
    chosen: dict[tuple[str, str], None] = {}
    left_out: dict[str, None] = {}
    for selector in config.tasks:
        kind, colon, dataset = selector.partition(":")
        if colon and not dataset:
            raise BenchError(f"--tasks {selector}: expected a dataset after the colon, or the kind alone: {kind}")
        kinds = TASKS.names() if kind == "all" else [kind]
        names = suite
        if dataset:
            names = [dataset] if dataset in suite else datasets.open([dataset])
        found = False
        for kind in kinds:
            task = TASKS[kind]
            for name in names:
                lacking = _lacking(task, datasets[name])
                if not lacking:
                    chosen[kind, name] = None
                    found = True
                elif dataset and selector != f"all:{dataset}":
                    raise BenchError(f"task {selector}: dataset '{name}' {lacking}")
                else:
                    left_out[f"{kind} on {name}: the dataset {lacking}"] = None
        if not found and not absent:
            raise BenchError(f"task {selector}: none of the datasets {', '.join(names)} carries what it needs")
    if not chosen:
        raise BenchError(f"none of the tasks {', '.join(config.tasks)} can be run on {', '.join(suite)}")
    pairs = []
    for kind, name in chosen:
        options = task_options(kind, config.options.get(kind, {}))
        content = {
            "format": EVALUATION_FORMAT,
            "source": source_of(TASKS[kind]),
            "options": options,
            "dataset": datasets[name].fingerprint,
            "card": datasets[name].card.content(),
            "evaluation": config.evaluation.model_dump(exclude={"batch_size"}),
        }
        given = {
            k: v
            for k, v in config.overrides.items()
            if k.startswith("evaluation.") or (k.startswith(f"{kind}.") and k.split(".")[1] in options)
        }
        variant = ", ".join(f"{k}={v}" for k, v in given.items())
        pairs.append(Pair(kind, name, options, content, variant))
    return pairs, list(left_out)


def _able(
    methods: list[str], selectors: list[str], pairs: list[Pair], left_out: list[str]
) -> tuple[list[Pair], list[str]]:
    """The pairs that one of the methods at least can be evaluated by, and what is left out, with the methods that
    cannot. Raises ``BenchError`` where a task is asked for by its name and no method can.
    """
    kept = []
    reasons: dict[str, None] = {}
    for pair in pairs:
        needs = TASKS[pair.task].abilities
        unable = [name for name in methods if not needs <= METHODS[name].abilities]
        if not needs or len(unable) < len(methods):
            kept.append(pair)
        elif any(selector.partition(":")[0] == pair.task for selector in selectors):
            able = [name for name in METHODS.names() if needs <= METHODS[name].abilities]
            raise BenchError(
                f"task {pair.task}: none of the methods {', '.join(methods)} can {', '.join(sorted(needs))}; "
                f"those that can: {', '.join(able)}"
            )
        if unable:
            reasons[f"{pair.task} by {', '.join(unable)}: cannot {', '.join(sorted(needs))}"] = None
    return kept, [*left_out, *reasons]


def _lacking(task: Any, dataset: Dataset) -> str:
    if dataset.streams:
        return "streams, which is for pretraining alone"
    needs = sorted(task.needs - dataset.provides)
    if needs:
        return f"has no {', no '.join(needs)}"
    splits = [split for split in task.splits if split not in dataset.splits()]
    return f"has no split {', '.join(splits)}" if splits else ""


def _unmet(plan: Plan) -> dict[str, list[str]]:
    """By the key of a cell, what its method needs and does not get."""
    model = build_model(plan.model, 0, "meta")
    there = {
        "image_tokens": model.has_image_tokens,
        "text_tokens": model.has_text_tokens,
        "causal_text": model.text.causal,
        "patch_dropout": model.image.has_patch_dropout,
        "language_model": isinstance(model.text, LanguageModelTower) and model.text.causal,
    }
    found: dict[str, list[str]] = {}
    for cell in plan.cells:
        method = METHODS[cell.method]
        for need in sorted(method.needs_of(method.Config(**cell.options))):
            lacking = [name for name in cell.pretraining if need not in plan.datasets[name].provides]
            reason = ""
            if need == "start_token":
                if not _starts_texts(plan.model):
                    reason = f"the tokenizer of model '{plan.model.name}' begins texts with their first word"
            elif need == "augmentation":
                if cell.training.augmentation == Augmentation.none():
                    reason = "training.augmentation leaves pictures as they are, so that two views would be one"
            elif need in there:
                if not there[need]:
                    reason = f"model '{plan.model.name}' does not give it"
            elif need == "label" and len(cell.pretraining) > 1:
                names = ", ".join(cell.pretraining)
                reason = f"pretrain on one dataset, the classes of {names} are not the same"
            elif lacking:
                reason = f"dataset '{lacking[0]}' does not carry it"
            if reason:
                found.setdefault(cell.key, []).append(f"method '{cell.method}' needs {need}: {reason}")
    return found


def _problems(plan: Plan) -> list[str]:
    problems = []
    for name in dict.fromkeys(name for cell in plan.cells for name in cell.pretraining):
        dataset = plan.datasets[name]
        if "text" not in dataset.provides:
            problems.append(f"dataset '{name}' has no text to pretrain on")
        elif "train" not in dataset.splits():
            problems.append(f"dataset '{name}' has no train split to pretrain on")
    return problems


def _starts_texts(model: ModelCard) -> bool:
    if isinstance(model.tokenizer, CorpusTokenizer):
        return True
    return build_tokenizer(model, None, cache_root()).start_id is not None
