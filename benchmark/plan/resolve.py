"""Resolve the names of a configuration: models, devices, options of methods and tasks, datasets."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from benchmark.common.errors import BenchError, MachineError, listed, unknown
from benchmark.config.schema import RunConfig
from benchmark.config.validation import reason, validated
from benchmark.data.card import Card, card_file, load_card
from benchmark.data.check import check_rows
from benchmark.data.dataset import AbsentDataset, Dataset, open_dataset
from benchmark.method import METHODS, Method
from benchmark.models import DualEncoder, ModelCard, load_model_card
from benchmark.registry import Registry
from benchmark.task import TASKS

NOT_FOUND = "not found on this machine"


def resolve_model(config: RunConfig) -> ModelCard:
    """Return the run's model card with the command line's overrides applied."""
    card = load_model_card(config.model)
    if not config.model_options:
        return card
    where = f"model '{config.model}' with --set model.{{{', '.join(config.model_options)}}}"
    changed: ModelCard = validated(ModelCard, card.model_dump() | config.model_options, where)
    return changed


def resolve_device(name: str, absent: bool = False) -> torch.device:
    """Return a device by name; ``auto`` prefers CUDA, then Apple's GPU, then the CPU.

    Raises ``BenchError`` for a device that this machine does not have, unless it may be ``absent``.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, usable in available.items() if usable))
    if name not in available:
        raise unknown("device (--device)", name, ["auto", *available])
    if not available[name] and not absent:
        raise BenchError(
            f"--device {name}: not available here; found {', '.join(d for d in available if available[d])}"
        )
    return torch.device(name)


def method_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return all options of a method: its defaults, overridden by ``options``.

    Raises ``BenchError`` for an unknown option and for a value of the wrong type.
    """
    own = {key: value for key, value in options.items() if is_option_of(key, name, METHODS, TASKS)}
    return checked_options(f"method '{name}'", METHODS[name].Config, own)


def task_options(name: str, config: RunConfig) -> dict[str, Any]:
    """Return all options of a task in a run, as method_options() does for a method."""
    options = config.options.get(name, {})
    if name in config.arms and config.arm(name).method == name:
        options = options | config.arms[name].options
    own = {key: value for key, value in options.items() if is_option_of(key, name, TASKS, METHODS)}
    return checked_options(f"task '{name}'", TASKS[name].Config, own)


def check_settings(config: RunConfig) -> None:
    """Raise ``BenchError`` for a --set or --grid of a method or task that is not in the run.

    It would have no effect. A suite's ``options`` may name methods and tasks outside the run.
    """
    arms = arm_names(config)
    methods = [config.arm(arm).method for arm in arms]
    tasks = [selector.partition(":")[0] for selector in config.tasks]
    if "all" in tasks:
        tasks = TASKS.names()
    varied = dict.fromkeys(name for point in config.grid for name in point)
    for option, settings in (("--set", config.overrides), ("--grid", varied)):
        for setting in settings:
            section, _, key = setting.partition(".")
            if section in config.arms or key.partition(".")[0] in ("training", "stages"):
                if section not in arms:
                    raise BenchError(
                        f"{option} {setting}: arm '{section}' is not in this run; its arms: {listed(arms) or 'none'}"
                    )
                continue
            absent = []
            for kind, names, registry, other in (("method", methods, METHODS, TASKS), ("task", tasks, TASKS, METHODS)):
                if section in registry.names() and is_option_of(key, section, registry, other):
                    if section in names:
                        break
                    absent.append(f"{kind} '{section}' is not in this run; its {kind}s: {', '.join(names) or 'none'}")
            else:
                if absent:
                    raise BenchError(f"{option} {setting}: {absent[0]}")


def is_option_of(key: str, name: str, registry: Registry[Any], other: Registry[Any]) -> bool:
    """Return whether an option under ``name`` belongs to the class of that name in ``registry``.

    A method and a task may share a name (captioning); an option that only the class in ``other`` has belongs to that
    one. Raises ``BenchError`` for an option that neither has.
    """

    def options(where: Registry[Any]) -> set[str]:
        return {f.name for f in dataclasses.fields(where[name].Config)} if name in where.names() else set()

    own, others = options(registry), options(other)
    if own and others and key not in own | others:
        raise BenchError(f"method and task '{name}': {unknown('option', key, own | others)}")
    return key in own or key not in others


def build_method(name: str, model: DualEncoder, options: Mapping[str, Any]) -> Method:
    """Build a method around a model. options: all of them, from method_options() or a cell in the store."""
    cls = METHODS[name]
    return cls(model, TypeAdapter(cls.Config).validate_python(dict(options)))


def checked_options(owner: str, config: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a ``Config``, a dataclass: its defaults, overridden by ``options``. owner: for messages.

    Raises ``BenchError`` for an unknown option and for a value of the wrong type.
    """
    names = [f.name for f in dataclasses.fields(config)]
    for key in options:
        if key not in names:
            raise BenchError(f"{owner}: {unknown('option', key, names)}")
    try:
        return dataclasses.asdict(TypeAdapter(config).validate_python(options))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise BenchError(f"{owner}: {reason(first, f'option {key}')}") from error


class Datasets:
    """The datasets of a run by the names of their cards, each opened once.

    from_cards: also open datasets that are not on this machine, as their cards describe them.
    """

    def __init__(self, config: RunConfig, cache: Path, from_cards: bool = False) -> None:
        self.config = config
        self.cache = cache
        self.from_cards = from_cards
        self.opened: dict[str, Dataset] = {}
        self._files: dict[str, Path] = {}

    def __getitem__(self, name: str) -> Dataset:
        return self.opened[name]

    def open(self, references: Iterable[str]) -> list[str]:
        """Open datasets by their cards, shipped ones by name and others by path; return the cards' names.

        Raises ``BenchError`` if two cards have the same name.
        """
        names = []
        for reference in references:
            file = card_file(reference)[0].resolve()
            card = load_card(reference, self.texts(reference))
            _check_headline(card)
            if self._files.setdefault(card.name, file) != file:
                raise BenchError(f"two datasets are named '{card.name}': {self._files[card.name]} and {file}")
            if card.name not in self.opened:
                absent = self.from_cards and not card.source.is_present()
                opened = AbsentDataset if absent else open_dataset
                self.opened[card.name] = opened(card, self.config.on_bad_data, self.cache)
            names.append(card.name)
        return list(dict.fromkeys(names))

    def texts(self, name: str) -> dict[str, Any]:
        """Return what the run says of a dataset's classes in place of its card."""
        texts = self.config.cards.get(name)
        return texts.model_dump(exclude_none=True) if texts else {}

    def unusable(self, reference: str) -> str:
        """Explain why a dataset of the suite must be left out; "" if it is present and has rows.

        Bad rows are a reason only if no good ones remain; otherwise they raise ``BenchError``.
        """
        card = load_card(reference)
        if not card.source.is_present():
            return NOT_FOUND
        (name,) = self.open([reference])
        try:
            check_rows(self[name])
        except MachineError:
            raise
        except BenchError:
            try:
                check_rows(open_dataset(card, "skip", self.cache))
            except MachineError:
                raise
            except BenchError as error:
                del self.opened[name]
                return str(error).splitlines()[0].removeprefix(f"dataset '{name}' ")
            raise
        return ""

    def fingerprints(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """List datasets with the hashes of their records."""
        return [(name, self[name].fingerprint) for name in names]


def _check_headline(card: Card) -> None:
    """Raise ``BenchError`` if no task knows the metric that a card wants in the tables."""
    known = {name for task in TASKS.names() for name in TASKS[task].headlines} if card.headline else ()
    if card.headline and card.headline not in known:
        raise unknown(f"headline of dataset '{card.name}', set by its card:", card.headline, known)


def arm_names(config: RunConfig) -> list[str]:
    """List the names of a run's arms. Raises ``BenchError`` for an unknown one, and for an arm of an unknown method."""
    every = [*config.arms, *(name for name in METHODS.names() if name not in config.arms)]
    names = list(dict.fromkeys(every if config.methods == ["all"] else config.methods))
    for name in names:
        if name in config.arms:
            if (method := config.arm(name).method) not in METHODS.names():
                if config.arms[name].method is None:
                    raise BenchError(
                        f"arm '{name}' names no method, and no method is called '{name}': add method: to the arm, "
                        f"as in {name}: {{method: clip}}"
                    )
                raise unknown(f"method of arm '{name}'", method, METHODS.names())
        elif name not in METHODS.names():
            raise unknown("arm or method" if config.arms else "method", name, every)
    return names


def arm_options(config: RunConfig, name: str) -> dict[str, Any]:
    """Return all options of an arm's method, those of the arm over those of the suite.

    Raises ``BenchError`` for an unknown option and for a value of the wrong type.
    """
    arm = config.arm(name)
    if name == arm.method:
        return method_options(name, arm.options)
    of_method = method_options(arm.method, config.options.get(arm.method, {}))
    own = config.arms[name].options
    return checked_options(f"arm '{name}', method '{arm.method}'", METHODS[arm.method].Config, of_method | own)
