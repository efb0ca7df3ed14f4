"""Make a plan: resolve a configuration into cells and evaluations, and find what prevents it from running.

Trains and encodes nothing.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmark.common.errors import BenchError, listed, unknown
from benchmark.config.augmentation import Augmentation
from benchmark.config.claims import Scored
from benchmark.config.schema import CardTexts, Condition, ResolvedArm, RunConfig
from benchmark.config.training import Evaluating, Steps, Training
from benchmark.config.validation import validated
from benchmark.data.card import card_names, load_card
from benchmark.data.dataset import Dataset
from benchmark.evaluation.external import external_model, from_card, is_external, with_own_prompts
from benchmark.evaluation.fixed import baselines
from benchmark.method import LOSS_SETTINGS, METHODS
from benchmark.models import DualEncoder, ModelCard, build_model, build_tokenizer
from benchmark.models.card import CorpusTokenizer
from benchmark.models.tower import LanguageModelTower
from benchmark.plan.plan import Cell, Language, Pair, Plan, cell_content, language_content, pair_content
from benchmark.plan.resolve import (
    NOT_FOUND,
    Datasets,
    arm_names,
    arm_options,
    build_method,
    check_settings,
    is_option_of,
    method_options,
    resolve_device,
    resolve_model,
    task_options,
)
from benchmark.plan.tuned import tuned
from benchmark.store.cache import cache_root
from benchmark.store.rows import Label
from benchmark.task import TASKS, Task
from benchmark.training.cost import on_meta
from benchmark.training.ranks import micro_batch_count
from benchmark.training.schedule import stage_starts, training_steps, warmup_steps


def make_plan(config: RunConfig, cache: Path | None = None, from_cards: bool = False) -> Plan:
    """Resolve every name of a configuration. Raises ``BenchError`` for an unknown one.

    from_cards: where a run would be refused for data or a device that are not here, plan it all the same, with the
    datasets as their cards describe them. Such a plan can be estimated, but not run.
    """
    config = _with_tested_datasets(config)
    _check_claims(config)
    datasets = Datasets(config, cache or cache_root(), from_cards)
    config, absent = _with_datasets_here(config, datasets)
    arms = arm_names(config)
    _check_options(config)
    _check_datasets(config, datasets)
    for point in config.grid:
        for condition, names in config.at(point, "--grid").trained_on().items():
            with _blaming_scenario(config, condition):
                datasets.open(names)
    pairs, left_out = _able(config, arms, *_pairs(config, datasets, absent))
    run = _resolve(config, datasets)
    plan = Plan(
        config,
        run.model,
        run.device,
        datasets.opened,
        run.corpus,
        run.initial,
        _cells(run, arms),
        pairs,
        language=run.language,
        tested_at={name: at for at, reference in config.tested_on().items() for name in datasets.open([reference])},
        left_out=left_out,
        absent=absent,
    )
    _add_baselines(plan, run)
    plan.left_out += _unvalidated(plan)
    provides = _model_provides(plan.blank_model)
    unmet = _unmet(plan, provides)
    reasons = list(dict.fromkeys(reason for of_cell in unmet.values() for reason in of_cell))
    if config.methods == ["all"]:
        plan.cells = [cell for cell in plan.cells if cell.key not in unmet]
        plan.left_out += reasons
        reasons = []
    plan.problems = reasons + _problems(plan) + _unmet_by_tasks(plan, provides)
    return plan


def evaluation_plan(config: RunConfig, spec: str, cache: Path | None = None, own_prompts: bool = False) -> Plan:
    """Plan the evaluation of an external model and of its baselines, without any training.

    Tasks, datasets and seeds are the configuration's. spec: as external_model() takes it, or a model card's name or
    path. own_prompts: whether the templates of the model's authors stand in place of those of the datasets' cards,
    where these are templates too.
    """
    other = external_model(spec) if is_external(spec) else None
    if own_prompts:
        if other is None:
            raise BenchError(f"--own-prompts: '{spec}' is no published model; see bench list models")
        other = with_own_prompts(other)
        config = _with_prompts(config, list(other.prompts))
    if other is None:
        config = config.model_copy(update={"model": spec})
    config = config.model_copy(update={"methods": []})
    check_settings(config)
    plan = make_plan(config.model_copy(update={"baselines": True}), cache)
    if other:
        # It has its own tokenizer: what is pretrained on, and may be large, need not be prepared.
        tested = {plan.plain_dataset, *(pair.dataset for pair in plan.pairs)}
        plan.datasets = {name: dataset for name, dataset in plan.datasets.items() if name in tested}
        plan.problems = []  # They are those of the suite's own model.
    of_card, plan.fixed = plan.fixed, []
    for seed in config.seeds:
        if other is None:
            initial, *below = [fixed for fixed in of_card if fixed.seed == seed]
            model = from_card(plan.model, initial, config.suite)
        else:
            model, below = other.fixed(seed, config.suite), other.baselines(seed, config.suite)
        *untrained, raw_pixels = below
        # A model of random weights has no other untrained ones: it is held against itself, which it does not beat.
        plan.starts[seed] = untrained[0].key if untrained else model.key
        plan.raw_pixels[seed] = raw_pixels.key
        plan.fixed += [model, *(below if config.baselines else [])]
    return plan


def _with_prompts(config: RunConfig, prompts: list[str]) -> RunConfig:
    """Give the datasets of a run other templates for their classes, where their own are templates without negation."""
    cards = dict(config.cards)
    for name in config.datasets:
        card = load_card(name)
        if isinstance(card.prompts, list) and not card.negative_prompts:
            cards[name] = CardTexts(prompts=prompts)
    return config.model_copy(update={"cards": cards})


@dataclass(frozen=True)
class _Run:
    """What all cells of a run share, with every name resolved.

    initial: the cell whose weights the others start from; None: they start as the model's card defines.
    """

    config: RunConfig
    datasets: Datasets
    model: ModelCard
    device: torch.device
    corpus: list[str]
    initial: Cell | None = None
    language: Language | None = None

    def cell(
        self, at: RunConfig, arm: ResolvedArm, options: Mapping[str, Any], pretraining: list[str], seed: int
    ) -> Cell:
        """Make a cell. at: the configuration with the arm's tuned settings and a grid point applied."""
        method = arm.method
        validation = self.validation(pretraining)
        uses_language = self.language and "language_model" in METHODS[method].needs_of(
            METHODS[method].Config(**options)
        )
        content = cell_content(
            method,
            options,
            arm.training,
            self.model,
            self.device,
            tokenizer_data=self.datasets.fingerprints(self.corpus),
            pretraining=self.datasets.fingerprints(pretraining),
            initial=self.initial.key if self.initial else None,
            language=self.language.content if self.language and uses_language else None,
            seed=seed,
            validation=self.datasets.fingerprints(validation),
            keep=at.evaluation.shares,
        )
        label = Label(
            suite=at.suite,
            model=self.model.name,
            arm=arm.name,
            method=method,
            variant=_cell_variant(at, arm),
            seed=seed,
            pretraining=", ".join(pretraining),
        )
        if arm.name in at.arms and (recipe := _written(at.arms[arm.name].departures)):
            label["recipe"] = recipe
        return Cell(
            arm.name, method, dict(options), arm.training, tuple(pretraining), tuple(validation), seed, content, label
        )

    def validation(self, pretraining: list[str]) -> list[str]:
        """List the sets to pretrain on that give the validation loss: all, where none of those named is among them."""
        named = {load_card(reference).name for reference in self.config.validation}
        return [name for name in pretraining if name in named] or pretraining


def _resolve(config: RunConfig, datasets: Datasets) -> _Run:
    """Resolve model, device, tokenizer and initial weights. datasets: with those of training and evaluation open."""
    model, device = resolve_model(config), resolve_device(config.device, datasets.from_cards)
    corpus: list[str] = []
    if isinstance(model.tokenizer, CorpusTokenizer):
        # All points of a grid share the tokenizer, so that their texts are the same.
        plain = [name for point in config.grid for name in next(iter(config.at(point).trained_on().values()))]
        corpus = datasets.open(model.tokenizer.datasets) or datasets.open(plain)
    run = _Run(config, datasets, model, device, corpus)
    run = replace(run, initial=_initial_cell(run))
    # Last, as it determines which datasets only the language model uses.
    return replace(run, language=_language(model, datasets, corpus))


def _cells(run: _Run, arms: list[str]) -> list[Cell]:
    """Make a cell for each grid point, seed, arm and condition of the scenario.

    Raises ``BenchError`` for a grid over what cannot vary, and for two arms that are the same training.
    """
    config, cells = run.config, []
    for point in config.grid:
        for name in point:
            if name.split(".")[0] not in ("training", "pretraining", *config.arms, *METHODS.names()):
                raise BenchError(
                    f"--grid {name}: a grid can only vary training settings, options of methods and arms, and the "
                    "pretraining sets"
                )
        for seed, arm in product(config.seeds, arms):
            at = (tuned(config, arm) if config.tuned else config).at(point, "--grid")
            options = arm_options(at, arm)
            conditions = {
                condition: run.cell(at, at.arm(arm), options, run.datasets.open(names), seed)
                for condition, names in at.trained_on().items()
            }
            plain = next(iter(conditions.values())).key
            cells += [replace(cell, condition=condition, plain=plain) for condition, cell in conditions.items()]
    # A grid over one arm's options must not repeat the cells of the others.
    distinct: dict[str, Cell] = {}
    for cell in cells:
        same = distinct.setdefault(cell.key, cell)
        if same.arm != cell.arm:
            raise BenchError(
                f"arms '{same.arm}' and '{cell.arm}' are the same training: same method, options and settings; "
                "drop one of them, or change a setting of one"
            )
    return list(distinct.values())


def _cell_variant(config: RunConfig, arm: ResolvedArm) -> str:
    """Name the settings of an arm that the command line overrides."""
    settings = {}
    for name, value in config.overrides.items():
        section, _, key = name.partition(".")
        own = section == arm.name or (section == arm.method and section not in config.arms)
        if section in ("training", "model", "pretraining") or (own and _of_training(key, arm.method)):
            settings[name.removeprefix(f"{section}." if own else "")] = value
    return _written(settings)


def _of_training(key: str, method: str) -> bool:
    """Return whether an override below an arm's or method's name concerns its training, and not a task of that name."""
    return key.partition(".")[0] in ("training", "stages") or is_option_of(key, method, METHODS, TASKS)


def _written(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in settings.items())


def _value(value: Any) -> str:
    """Write a value as a suite does, where Python would write a mapping with quotes."""
    if not isinstance(value, Mapping):
        return str(value)
    return "{" + ", ".join(f"{key}: {_value(part)}" for key, part in value.items()) + "}"


def _initial_cell(run: _Run) -> Cell | None:
    """Make the cell that trains the initial weights, from the model's card alone: a run's settings do not apply."""
    init = run.model.init
    if init is None or init.method is None:
        return None
    training = validated(Training, init.training, f"model '{run.model.name}', init.training")
    at = run.config.model_copy(update={"overrides": {}, "arms": {}, "evaluation": Evaluating()})
    arm = ResolvedArm(init.method, init.method, {}, training)
    return run.cell(at, arm, method_options(init.method, {}), run.datasets.open(init.datasets), 0)


def _language(model: ModelCard, datasets: Datasets, corpus: list[str]) -> Language | None:
    if model.init is None or model.init.language_model is None:
        return None
    spec = model.init.language_model
    others = set(datasets.opened)
    names = datasets.open(spec.datasets)
    content = language_content(
        spec, model, tokenizer_data=datasets.fingerprints(corpus), texts=datasets.fingerprints(names)
    )
    return Language(spec, tuple(names), frozenset(names) - others, content)


def _add_baselines(plan: Plan, run: _Run) -> None:
    """Set the keys of initial weights and raw pixels by seed; add the baselines if the configuration wants them."""
    config, model = run.config, run.model
    settings = {name: value for name, value in config.overrides.items() if name.startswith("model.")}
    variant = ", ".join(f"{name}={value}" for name, value in settings.items())
    initial = run.initial.key if run.initial else None
    for seed in config.seeds:
        tokenizer_data = run.datasets.fingerprints(run.corpus)
        of_seed = baselines(model, tokenizer_data, initial, config.suite, variant, seed)
        plan.starts[seed], plan.raw_pixels[seed] = of_seed[0].key, of_seed[-1].key
        plan.fixed += of_seed if config.baselines else []


def _check_options(config: RunConfig) -> None:
    """Raise ``BenchError`` for options of an unknown method or task, and for invalid options.

    Includes methods and tasks outside this run, so that the first run of a suite finds all its mistakes.
    """
    for name, options in config.options.items():
        if name not in METHODS.names() and name not in TASKS.names():
            raise unknown("method or task under options", name, [*METHODS.names(), *TASKS.names()])
        if name in METHODS.names():
            method_options(name, options)
        if name in TASKS.names():
            task_options(name, config)
    for name in arm_names(config.model_copy(update={"methods": ["all"]})):
        arm_options(config, name)


@contextmanager
def _blaming_scenario(config: RunConfig, condition: Condition | None) -> Iterator[None]:
    """Name --scenario in an error about a condition that it sets, rather than the card that it is set in."""
    try:
        yield
    except BenchError as error:
        scenario = config.scenario
        if scenario is None or condition not in scenario.conditions:
            raise
        reason = str(error).partition(f"{scenario.setting}: ")[2] or str(error)
        raise BenchError(f"--scenario {scenario.name}={condition:g}: {reason}") from error


def _check_datasets(config: RunConfig, datasets: Datasets) -> None:
    """Raise ``BenchError`` for an unknown dataset under ``cards`` and ``validation``, and for texts that do not fit."""
    for name in config.cards:
        load_card(name, datasets.texts(name))
    for name in config.validation:
        load_card(name)


def _check_claims(config: RunConfig) -> None:
    """Raise ``BenchError`` for a claim about an unknown arm, task or dataset."""
    arms = {*config.arms, *METHODS.names()}
    for name, claim in config.claims.items():
        for arm in claim.arms:
            if arm not in arms:
                raise unknown(f"arm of claim '{name}'", arm, arms)
        if not isinstance(claim, Scored):
            continue
        for task in claim.tasks:
            if task not in TASKS.names():
                raise unknown(f"task of claim '{name}'", task, TASKS.names())
        # The command line may have replaced the suite's datasets.
        known = {*card_names(), *(load_card(reference).name for reference in config.datasets)}
        for dataset in claim.datasets if not config.required else ():
            if dataset not in known:
                raise unknown(f"dataset of claim '{name}'", dataset, known, "bench list datasets")


def _with_tested_datasets(config: RunConfig) -> RunConfig:
    """Add the sets that the scenario tests on to those evaluated on."""
    tested = list(config.tested_on().values())
    return config.model_copy(update={"datasets": list(dict.fromkeys([*tested, *config.datasets]))})


def _with_datasets_here(config: RunConfig, datasets: Datasets) -> tuple[RunConfig, list[str]]:
    """Leave out the suite's datasets that are not on this machine or have no rows; return a line for each.

    Raises ``BenchError`` if none is left to pretrain on or to evaluate on, and with --strict for any left out; but if
    they may be planned from cards, keeps those that are not on this machine.
    """
    absent: dict[str, str] = {}
    kept: dict[str, list[str]] = {}
    refused = ""
    for key in ("pretraining", "datasets"):
        kept[key] = []
        for reference in getattr(config, key):
            if reference in config.required or not (reason := datasets.unusable(reference)):
                kept[key].append(reference)
            else:
                absent[load_card(reference).name] = reason
        needed = key == "datasets" or config.methods or _trains_tokenizer(config)
        if not kept[key] and not refused and needed:
            use = "pretrain" if key == "pretraining" else "evaluate"
            refused = f"no dataset to {use} on is usable here; missing: {listed(absent)}"
    if absent and config.strict and not refused:
        names = (name if reason == NOT_FOUND else f"{name} ({reason})" for name, reason in absent.items())
        refused = f"--strict: not found: {listed(names)}; see bench data how NAME"
    here = [name for name, reason in absent.items() if reason != NOT_FOUND]
    if refused and datasets.from_cards:
        for key, references in kept.items():
            references[:] = [each for each in getattr(config, key) if load_card(each).name not in here]
        absent = {name: absent[name] for name in here}
        refused = "" if all(kept.values()) else refused
    if refused:
        separator = ", " if refused.startswith("--strict") else ": "
        raise BenchError(f"suite {config.suite}{separator}{refused}")
    lines = [f"{name}: {reason}; bench data how {name}" for name, reason in absent.items()]
    return config.model_copy(update=kept), lines


def _trains_tokenizer(config: RunConfig) -> bool:
    """Return whether the tokenizer of the model is trained on what is pretrained on."""
    tokenizer = resolve_model(config).tokenizer
    return isinstance(tokenizer, CorpusTokenizer) and not tokenizer.datasets


def _pairs(config: RunConfig, datasets: Datasets, absent: list[str]) -> tuple[list[Pair], list[str]]:
    """Make the pairs that the selectors ``all``, ``kind`` and ``kind:dataset`` name; list those left out with reasons.

    A kind that fits no dataset is left out if datasets are ``absent``; otherwise it is a ``BenchError``.
    """
    suite = datasets.open(config.datasets)
    chosen: dict[tuple[str, str], None] = {}
    left_out: dict[str, None] = {}
    for selector in config.tasks:
        kind, colon, dataset = selector.partition(":")
        if colon and not dataset:
            raise BenchError(f"--tasks {selector}: expected a dataset after the colon, or only {kind}")
        kinds = TASKS.names() if kind == "all" else [kind]
        names = suite
        if dataset:
            names = [dataset] if dataset in suite else datasets.open([dataset])
        fits = False
        unfit: dict[str, None] = {}
        for kind in kinds:
            task = TASKS[kind]
            for name in names:
                lacking = _lacking(task, datasets[name])
                if not lacking:
                    chosen[kind, name] = None
                    fits = True
                elif dataset and selector != f"all:{dataset}":
                    raise BenchError(f"task {selector}: dataset '{name}' {lacking}")
                else:
                    left_out[f"{kind} on {name}: the dataset {lacking}"] = None
                    unfit[f"dataset '{name}' {lacking}"] = None
        if not fits and not absent:
            raise BenchError(f"task {selector}: {listed(unfit)}")
    if not chosen:
        raise BenchError(f"none of the tasks {listed(config.tasks)} can run on {listed(suite)}")
    return [_pair(config, kind, datasets[name]) for kind, name in chosen], list(left_out)


def _pair(config: RunConfig, task: str, dataset: Dataset) -> Pair:
    options = task_options(task, config)
    settings = {
        name: value
        for name, value in config.overrides.items()
        if (name.startswith("evaluation.") and name != "evaluation.at")
        or (name.startswith(f"{task}.") and name.split(".")[1] in options)
    }
    variant = ", ".join(f"{name}={value}" for name, value in settings.items())
    return Pair(task, dataset.card.name, options, pair_content(task, options, dataset, config.evaluation), variant)


def _able(config: RunConfig, arms: list[str], pairs: list[Pair], left_out: list[str]) -> tuple[list[Pair], list[str]]:
    """Keep the pairs that at least one arm can do; list which arms cannot do which tasks.

    Raises ``BenchError`` if a task is selected by name and no arm can do it.
    """
    kept = []
    reasons: dict[str, None] = {}
    for pair in pairs:
        needs = TASKS[pair.task].abilities
        unable = [name for name in arms if not needs <= METHODS[config.arm(name).method].abilities]
        if not needs or len(unable) < len(arms):
            kept.append(pair)
        elif any(selector.partition(":")[0] == pair.task for selector in config.tasks):
            able = [name for name in METHODS.names() if needs <= METHODS[name].abilities]
            raise BenchError(
                f"task {pair.task}: none of the methods {', '.join(arms)} can {', '.join(sorted(needs))}; "
                f"those that can: {', '.join(able)}"
            )
        if unable:
            reasons[f"{pair.task} by {', '.join(unable)}: cannot {', '.join(sorted(needs))}"] = None
    return kept, [*left_out, *reasons]


def _lacking(task: type[Task], dataset: Dataset) -> str:
    """Describe what a dataset lacks for a task; "" if nothing."""
    if dataset.streams:
        return "streams, which only pretraining supports"
    needs = sorted(task.needs - dataset.provides)
    if needs:
        return f"has no {', no '.join(needs)}"
    splits = [split for split in task.splits if split not in dataset.splits()]
    return f"has no split {', '.join(splits)}" if splits else ""


def _unmet_by_tasks(plan: Plan, provides: Mapping[str, bool]) -> list[str]:
    """List what tasks need of the model and it does not provide."""
    needs = {
        (pair.task, need)
        for pair in plan.pairs
        for need in TASKS[pair.task].model_needs(TASKS[pair.task].Config(**pair.options))
    }
    return [
        f"task '{task}' with these options needs {need}: model '{plan.model.name}' does not provide it"
        for task, need in sorted(needs)
        if not provides[need]
    ]


def _unmet(plan: Plan, provides: Mapping[str, bool]) -> dict[str, list[str]]:
    """List the unmet needs of each cell's method, by the cell's key. provides: what the model provides."""
    unmet: dict[str, list[str]] = {}
    for cell in plan.cells:
        method = METHODS[cell.method]
        for need in sorted(method.needs_of(method.Config(**cell.options))):
            reason = _unmet_need(need, plan, cell, provides)
            if reason:
                unmet.setdefault(cell.key, []).append(f"{_whose(cell)} needs {need}: {reason}")
        if cell.key not in unmet and (problem := _unfit_stages(plan.model, cell)):
            unmet[cell.key] = [f"{_whose(cell)}: {problem}"]
        for setting in sorted(LOSS_SETTINGS - method.follows):
            value, default = getattr(cell.training, setting), Training.model_fields[setting].default
            if value != default:
                unmet.setdefault(cell.key, []).append(
                    f"{_whose(cell)} does not follow training.{setting}={value} in its losses; "
                    f"leave it out, or set {default}"
                )
    return unmet


def _whose(cell: Cell) -> str:
    """Name a cell's arm, where it has a name of its own, and its method, for messages."""
    arm = "" if cell.arm == cell.method else f"arm '{cell.arm}', "
    return f"{arm}method '{cell.method}'"


def _unfit_stages(model: ModelCard, cell: Cell) -> str:
    """Explain which settings do not fit the stages of a cell's method with its options; "" if all do.

    A warm-up in steps is compared with the budget where that is known without the data.
    """
    training = cell.training
    if not training.stages and not isinstance(training.warmup, Steps):
        return ""
    built = build_model(model, 0, "meta")
    with on_meta():
        method = build_method(cell.method, built, cell.options)
    stages = [*method.stages()]
    for stage in training.stages:
        if stage not in stages:
            return str(unknown("stage under training.stages", stage, stages))
    if training.budget[0] in ("samples", "steps"):
        steps = training_steps(training, 0, lambda: math.nan)
        try:
            starts = [*stage_starts(method, steps).values(), steps]
            for stage, start, end in zip(stages, starts, starts[1:]):
                warmup_steps(training.at_stage(stage), end - start)
        except BenchError as error:
            return str(error)
    return ""


def _model_provides(model: DualEncoder) -> dict[str, bool]:
    return {
        "image_tokens": model.has_image_tokens,
        "text_tokens": model.has_text_tokens,
        "causal_text": model.text.causal,
        "patch_dropout": model.image.has_patch_dropout,
        "language_model": isinstance(model.text, LanguageModelTower) and model.text.causal,
    }


def _unmet_need(need: str, plan: Plan, cell: Cell, provides: Mapping[str, bool]) -> str:
    """Explain why a need of a cell's method is unmet; "" if it is met. provides: what the model provides."""
    if need == "start_token":
        if not _starts_texts(plan.model):
            return f"the tokenizer of model '{plan.model.name}' does not begin texts with a start token"
    elif need == "augmentation":
        if cell.training.augmentation == Augmentation.none():
            return "training.augmentation does not change images, so both views would be identical"
    elif need in provides:
        if not provides[need]:
            return f"model '{plan.model.name}' does not provide it"
    elif need == "label" and len(cell.pretraining) > 1:
        return f"{', '.join(cell.pretraining)} have different classes; pretrain on one of them"
    else:
        lacking = [name for name in cell.pretraining if need not in plan.datasets[name].provides]
        if lacking:
            return f"dataset '{lacking[0]}' does not have it"
    return ""


def _unvalidated(plan: Plan) -> list[str]:
    """Say on what the validation loss is computed, where it is on none of the sets that the suite names for it."""
    named = {load_card(reference).name for reference in plan.config.validation}
    lines = {
        f"validation on {listed(named)}: not among the sets to pretrain on here; the loss is that of "
        f"{listed(cell.validation)}": None
        for cell in plan.cells
        if named and not named & set(cell.validation)
    }
    return list(lines)


def _problems(plan: Plan) -> list[str]:
    """List the pretraining sets that cannot be pretrained on, with the reason."""
    problems = []
    for name in dict.fromkeys(name for cell in plan.cells for name in cell.pretraining):
        dataset = plan.datasets[name]
        if "text" not in dataset.provides:
            problems.append(f"dataset '{name}' has no text to pretrain on")
        elif "train" not in dataset.splits():
            problems.append(f"dataset '{name}' has no train split to pretrain on")
    return problems + _unshared(plan)


def _unshared(plan: Plan) -> list[str]:
    """List the arms whose cells cannot be trained on as many GPUs as the run wants for a cell, with the reason."""
    count, problems = plan.config.gpus_per_cell, {}
    if count > 1 and plan.device.type == "mps":
        return [f"--gpus-per-cell {count}: an Apple device has one GPU"]
    for cell in plan.cells:
        if (number := micro_batch_count(cell.training)) < count:
            size = cell.training.batch_size
            advice = f"set training.micro_batch={size // count}" if size >= count else "set a larger batch_size"
            problems[cell.arm] = (
                f"arm '{cell.arm}': micro-batches of {cell.training.micro_batch} divide its batch of {size} into "
                f"{number}, fewer than --gpus-per-cell {count}; {advice}"
            )
    return [*problems.values()]


def _starts_texts(model: ModelCard) -> bool:
    """Return whether the model's tokenizer begins every text with a start token."""
    if isinstance(model.tokenizer, CorpusTokenizer):
        return True
    return build_tokenizer(model, None, cache_root()).start_id is not None
