"""`bench tune`: search each arm's settings with the same number of trials, scored on the validation split."""

import logging
import math
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from rich.console import Console

from benchmark.common.errors import BenchError, MachineError, cut, said, unknown
from benchmark.common.progress import Progress, Stage
from benchmark.config.schema import SECTIONS, RunConfig
from benchmark.config.validation import unknown_key
from benchmark.config.yaml_files import parse_yaml
from benchmark.data.loader import PairLoader
from benchmark.evaluation.encoder import cosines
from benchmark.execution.materials import Materials, load_trained
from benchmark.method import METHODS, Method
from benchmark.plan.resolve import method_options
from benchmark.plan.tuned import settings_file
from benchmark.store.cache import cache_root
from benchmark.store.claim import Claim, ClaimLostError, wait_for
from benchmark.store.files import DamagedError, write_sealed
from benchmark.store.hashing import digest
from benchmark.store.store import Store
from benchmark.training.loop import StepProgress

if TYPE_CHECKING:
    import optuna

OBJECTIVES = ("retrieval", "loss")
RECALL_AT = 10
LOST = "lost"
"""The mark of a trial that ended before it had settings."""
MAX_PAIRS = 5000
"""The largest number of validation pairs that are ranked."""


@dataclass(frozen=True)
class Axis:
    """A setting to search: a range from low to high, or a list of choices."""

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: "optuna.Trial") -> Any:
        """Return the sampler's value of the setting for a trial."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Best:
    """The best settings of an arm and their value: recall@10 (0..1, higher is better) or loss (lower is better)."""

    settings: dict[str, Any]
    value: float


def tune_arms(
    config: RunConfig, results: Path, trials: int, search: Sequence[str], objective: str, progress: Progress
) -> dict[str, Best]:
    """Search settings for each arm until it has had ``trials`` trials; return the best by arm.

    Pruned trials count, and so do those of earlier calls with the same configuration and search. All files lie under
    ``results``/tuning.

    search: ``section.key=low..high`` (``:log`` for a log scale) or ``section.key=a,b,c``; if the section is the name of
    an arm, or of a method without an arm of its name, only its arms are searched. Without an axis of
    training.learning_rate, it is searched from a tenth to ten times that of the arm. Raises ``BenchError`` for an
    invalid search, for data without a validation split, and for an arm whose trials all failed.
    """
    from benchmark.plan.make import make_plan

    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    config = config.model_copy(
        update={"seeds": config.seeds[:1], "tasks": ["all"], "baselines": False, "scenario": None}
    )
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"at": []})})
    config = config.at({"training.validations": max(4, config.training.validations)})
    axes = [_axis(text, config.arms) for text in search]
    plan = make_plan(config)
    if plan.problems:
        raise BenchError("\n".join(plan.problems))
    if not any("val" in plan.datasets[name].splits() for name in plan.cells[0].validation):
        raise BenchError(f"tuning needs a split named val; none of {', '.join(plan.cells[0].validation)} has one")
    arms = {cell.arm: cell for cell in plan.cells}
    sections = {arm: {"training", arm} | ({cell.method} - {*config.arms}) for arm, cell in arms.items()}
    for axis in axes:
        section, _, option = axis.name.partition(".")
        if not any(section in of_arm for of_arm in sections.values()):
            kind = "arm" if section in config.arms else "method"
            raise BenchError(f"--search {axis.name}: {kind} '{section}' is not among {', '.join(arms)}")
        if section == "training":
            for value in axis.choices or (axis.low, axis.high):
                config.at({axis.name: int(value) if axis.whole else value}, "--search")
        if section != "training" and option.partition(".")[0] not in ("training", "stages"):
            method = arms[section].method if section in arms else section
            for value in axis.choices or (int(axis.low) if axis.whole else axis.low, axis.high):
                method_options(method, {option: value})
    best = {}
    for arm, cell in arms.items():
        own = [axis for axis in axes if axis.name.split(".")[0] in sections[arm]]
        rate = cell.training.learning_rate
        if not any(axis.name == "training.learning_rate" for axis in own):
            own.insert(0, Axis("training.learning_rate", rate / 10, rate * 10, log=True))
        best[arm] = _Search(config, arm, own, rate, objective, results, progress).run(trials)
        _write(settings_file(config, results / "tuning", arm), best[arm], objective, trials, own)
    return best


class _Search:
    """The search for one arm: an Optuna study in an SQLite file, so that it can resume.

    rate: the arm's learning rate, which the first trial takes.
    """

    def __init__(
        self,
        config: RunConfig,
        arm: str,
        axes: list[Axis],
        rate: float,
        objective: str,
        results: Path,
        progress: Progress,
    ) -> None:
        self.config, self.arm, self.axes, self.rate, self.objective = config, arm, axes, rate, objective
        self.progress = progress
        self.folder = results / "tuning"
        self.name = f"{settings_file(config, self.folder, arm).stem}-{digest([objective, *map(str, axes)])}"

    def run(self, trials: int) -> Best:
        """Search until there are ``trials`` trials; wait while another process does."""
        import sqlalchemy

        database = self.folder / "studies.db"
        try:
            while True:
                try:
                    with self._claimed(self.folder / self.name) as claimed:
                        return self._search(self._study(database), trials, claimed)
                except ClaimLostError as lost:
                    # Who has taken over goes on with it: it is waited for.
                    self.progress.print(f"{self.arm}: {lost}", "yellow")
        except sqlalchemy.exc.DatabaseError as error:
            raise DamagedError(
                database,
                f"is damaged, or no database of trials ({cut(str(error))})",
                "move it away to search anew; the best settings that were found stay",
            ) from error

    def _claimed(self, path: Path) -> Claim:
        with self.progress.stage(f"{self.arm}: searching") as stage:
            claimed = wait_for(path, lambda: False, lambda owner: stage.update(0, note=f"waiting for {owner}"))
        assert claimed is not None
        return claimed

    def _study(self, database: Path) -> "optuna.Study":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Two processes at once cannot create the tables of one database.
        with self._claimed(database):
            return optuna.create_study(
                storage=f"sqlite:///{database}",
                study_name=self.name,
                load_if_exists=True,
                direction="maximize" if self.objective == "retrieval" else "minimize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
            )

    def _search(self, study: "optuna.Study", trials: int, claimed: Claim) -> Best:
        import optuna

        States = optuna.trial.TrialState
        while (done := len(self._counted(study))) < trials:
            # Seeded by the number of the trial, so that a resumed search suggests the same settings.
            study.sampler = optuna.samplers.TPESampler(seed=done, n_startup_trials=min(5, trials))
            trial = self._unfinished(study) or self._next(study, done)
            try:
                with self.progress.stage(f"{self.arm}: trial {done + 1} of {trials}") as stage:
                    value = self.trial(trial, stage, claimed)
                claimed.check()
            except optuna.TrialPruned:
                study.tell(trial, state=States.PRUNED)
                self._print_trial(done, trials, trial, "pruned")
            except (ClaimLostError, MachineError, OSError, MemoryError):
                raise
            except BenchError as error:
                study.tell(trial, state=States.FAIL)
                self._print_trial(done, trials, trial, str(error).splitlines()[0])
            except (Exception, SystemExit, GeneratorExit) as error:
                # From a plug-in or a library: other settings may work.
                study.tell(trial, state=States.FAIL)
                self._print_trial(done, trials, trial, said(error))
            else:
                study.tell(trial, value)
                self._print_trial(done, trials, trial, f"{self.objective} {value:.4f}")
            # Once the study has the value: who is killed before that need not train again.
            self._remove_trials()
        self._remove_trials()
        if not study.get_trials(states=(States.COMPLETE,)):
            raise BenchError(f"arm '{self.arm}': none of its {trials} trials completed")
        return Best(dict(study.best_trial.params), study.best_trial.value or 0.0)

    def _remove_trials(self) -> None:
        for folder in (self.folder / "trials").glob(f"{self.name}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _counted(self, study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
        """List the trials that ended, without those that ended before they had settings."""
        return [trial for trial in study.get_trials() if trial.state.is_finished() and LOST not in trial.user_attrs]

    def _next(self, study: "optuna.Study", done: int) -> "optuna.Trial":
        """Begin a trial; the first one takes the arm's learning rate, unless others are listed."""
        [rates] = [axis for axis in self.axes if axis.name == "training.learning_rate"]
        if not done and (not rates.choices or self.rate in rates.choices):
            first_trial: dict[str, Any] = {"training.learning_rate": self.rate}
            study.enqueue_trial(first_trial)
        return study.ask()

    def _unfinished(self, study: "optuna.Study") -> "optuna.Trial | None":
        """Return the trial that an earlier process did not end, which goes on with the same settings; None if none.

        One that was killed before it had all of its settings is not counted: the same ones are drawn again.
        """
        import optuna

        States = optuna.trial.TrialState
        for frozen in study.get_trials(states=(States.RUNNING, States.WAITING)):
            if frozen.state == States.WAITING:
                # Asking returns it.
                lost = study.ask()
            else:
                lost = optuna.trial.Trial(study, frozen._trial_id)
                if {axis.name for axis in self.axes} <= set(frozen.params):
                    return lost
            lost.set_user_attr(LOST, True)
            study.tell(lost, state=States.FAIL)
        return None

    def _print_trial(self, number: int, trials: int, trial: "optuna.Trial", outcome: str) -> None:
        settings = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in trial.params.items()
        )
        self.progress.print(f"[{number + 1}/{trials}] {self.arm}, {settings}: {outcome}")

    def trial(self, trial: "optuna.Trial", stage: Stage, claimed: Claim) -> float:
        """Train with the sampler's settings; return the objective on the validation split.

        Goes on from the checkpoint of an earlier process. claimed: the study.
        """
        import optuna

        from benchmark.plan.make import make_plan

        settings = {axis.name: axis.suggest(trial) for axis in self.axes}
        at = self.config.at(settings).model_copy(update={"methods": [self.arm], "grid": [{}]})
        plan = make_plan(at)
        cell = plan.cells[0]
        store = Store(self.folder / "trials" / f"{self.name}-{cell.key}")
        materials = Materials(plan, Progress(Console(quiet=True), "none"), cache_root())

        def watch(reached: StepProgress) -> None:
            note = f"{reached.samples_per_second:,.0f} pairs/s, loss {reached.loss:.3f}"
            stage.update(reached.step, reached.steps, note)
            if math.isfinite(reached.validation_loss):
                # Pruning compares the trials of an arm by validation loss, whatever the objective.
                value = reached.validation_loss if self.objective == "loss" else -reached.validation_loss
                trial.report(value, reached.step)
                if reached.step < reached.steps and trial.should_prune():
                    raise optuna.TrialPruned

        evaluation = plan.config.evaluation
        if not store.finished(cell.key):
            method = materials.method(cell)
            cost = materials.pretrain(cell, method, cell.arm, store.partial(cell.key), watch, claimed.check)
            if self.objective == "loss":
                return float(cost["validation_loss" if evaluation.checkpoint == "last" else "best_validation_loss"])
            materials.finish(store, cell, cost, method.model.left_random)
        trained = load_trained(store, cell.key, evaluation.source(), plan.datasets, materials.tokenizer())
        return recall(trained.method.to(plan.device), materials.pairs(cell, "val"))


@torch.no_grad()
def recall(method: Method, pairs: PairLoader, batch: int = 256) -> float:
    """Compute recall@10 of image-text pairs, the mean of both directions, 0..1.

    Similarities are those of the method's evaluation. Every pair with the same text counts as correct; ties count
    against the correct one.
    """
    encoder = method.eval().encoder()
    by_tokens = "late_interaction" in method.abilities
    device = next(encoder.parameters()).device
    images, texts, words = [], [], []
    count = min(len(pairs), MAX_PAIRS)
    for start in range(0, count, batch):
        part = pairs.sequential(start, min(batch, count - start)).to(device)
        if by_tokens:
            images.append(encoder.project_image(encoder.image_tokens(part.view())))
            tokens = encoder.project_text(encoder.text_tokens(part.tokens, part.mask)) * part.mask[:, :, None]
            texts.append(F.pad(tokens, (0, 0, 0, encoder.text.context_length - tokens.shape[1])))
        else:
            images.append(encoder.encode_image(part.view()))
            texts.append(encoder.encode_text(part.tokens, part.mask))
        words += [tuple(row[kept].tolist()) for row, kept in zip(part.tokens.cpu(), part.mask.cpu())]
    number = {word: i for i, word in enumerate(dict.fromkeys(words))}
    same = torch.tensor([number[word] for word in words])
    correct = same[:, None] == same
    image, text = (torch.cat(parts).float() for parts in (images, texts))
    recalls = []
    for scores, relevant in ((cosines(image, text).cpu(), correct), (cosines(text, image).cpu(), correct.T)):
        best = scores.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
        recalls.append((((scores >= best) & ~relevant).sum(dim=1) < RECALL_AT).double().mean().item())
    return sum(recalls) / 2


def _axis(text: str, arms: Iterable[str] = ()) -> Axis:
    where = f"--search {cut(text)}"
    name, equals, values = text.partition("=")
    section, dot, key = name.strip().partition(".")
    example = "training.learning_rate=1e-4..1e-2:log or msd.targets=cross,hard"
    if not (equals and dot and key):
        raise BenchError(f"{where}: expected section.key=values, for example {example}")
    sections = list(dict.fromkeys(["training", *arms, *METHODS.names()]))
    if section not in sections:
        raise unknown("section of --search", section, sections)
    if section == "training" and key not in SECTIONS["training"].model_fields:
        raise unknown_key(SECTIONS["training"], "training", key)
    span = re.fullmatch(r"([^.,]+(?:\.\d+)?(?:e[+-]?\d+)?)\.\.([^:]+)(:log)?", values.strip())
    if span:
        try:
            low, high = float(span[1]), float(span[2])
        except ValueError as error:
            raise BenchError(f"{where}: expected two numbers, for example {example}") from error
        if not -math.inf < low < high < math.inf or (span[3] and low <= 0):
            raise BenchError(f"{where}: expected low..high with low < high, and low > 0 on a log scale")
        whole = all(re.fullmatch(r"\d+", part.strip()) for part in (span[1], span[2]))
        return Axis(name, low, high, log=bool(span[3]), whole=whole)
    choices = parse_yaml(f"[{values}]", where)
    if len(choices) < 2:
        raise BenchError(f"{where}: expected a range or several values, for example {example}")
    return Axis(name, choices=tuple(choices))


def _write(path: Path, best: Best, objective: str, trials: int, axes: list[Axis]) -> None:
    fields = {
        "settings": best.settings,
        "value": best.value,
        "objective": objective,
        "split": "val",
        "trials": trials,
        "searched": [axis.name for axis in axes],
    }
    write_sealed(path, fields)
