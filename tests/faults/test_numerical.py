"""Numbers that a plug-in may return: what is no finite number of the right shape ends in one line that names it."""

import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import balanced_accuracy_score, f1_score

from benchmark import Mean, MeanOverDraws, Measurement, Method, Output
from benchmark.common.errors import BenchError
from benchmark.evaluation.checks import checked
from benchmark.evaluation.encoder import Encoded
from benchmark.evaluation.evaluation import _check_encoded, spread_of
from benchmark.evaluation.external import external_model
from benchmark.evaluation.measurement import Gallery
from benchmark.evaluation.metrics import MeanOverClasses
from benchmark.evaluation.probe import majority_scores
from benchmark.execution.measure import headline, only_answer
from benchmark.method import encoder_of
from benchmark.report.costs import spikes as spikes_said
from benchmark.task import TASKS as TASKS_OF_NAMES
from benchmark.training.spikes import find_spikes, spiked
from tests.methods.fakes import Pairs, small_method
from tests.squares import CARD, Bench, edit
from tests.training.fakes import train

NAN, INF = float("nan"), float("inf")
counts: Counter[str] = Counter()
"""How many faults were injected, by kind."""


@pytest.fixture(scope="module", autouse=True)
def _print_counts(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\nnumerical faults: {sum(counts.values())} ({', '.join(f'{n} {kind}' for kind, n in counts.items())})")


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 600
    return text


# Methods


class Faulty(Method):
    """Clip; ``fault`` changes what it returns."""

    name = "faulty"
    fault: dict[str, Callable[..., Any]]

    def forward(self, batch: Any, *, embeddings_only: bool = False) -> Any:
        output = super().forward(batch)
        return self.fault.get("forward", lambda x: x)(output)

    def contrast(self, embeddings: Any, keys: Any) -> Any:
        logits = 5 * embeddings["image"] @ embeddings["text"].T
        loss = -logits.log_softmax(dim=1).diagonal().mean()
        return self.fault.get("contrast", lambda loss, _: {"contrastive": loss})(loss, self)

    def keys(self, batch: Any) -> Any:
        return self.fault.get("keys", dict)()

    def after_step(self, keys: Any) -> None:
        self.fault.get("after_step", lambda _: None)(self)

    def stages(self) -> Any:
        return self.fault.get("stages", lambda: {"pretrain": 1.0})()

    @property
    def temperature_scale(self) -> Any:
        return self.fault.get("temperature_scale", lambda: 5.0)()


def faulty(**fault: Callable[..., Any]) -> Faulty:
    method = Faulty(small_method("clip").model, None)
    method.fault = fault
    return method


def losses(change: Callable[[Any], Any]) -> dict[str, Callable[..., Any]]:
    return {"contrast": lambda loss, _: change(loss)}


def outputs(change: Callable[[dict[str, Any]], Any]) -> dict[str, Callable[..., Any]]:
    return {"forward": lambda output: Output(change(output.embeddings))}


def spoil(value: float, steps: int) -> Callable[[Method], None]:
    """Fill the first weight of the image tower with a value after a number of steps."""
    done = iter(range(1, 100))

    def after_step(method: Method) -> None:
        if next(done) == steps:
            with torch.no_grad():
                next(iter(method.model.image.parameters())).view(-1)[0] = value

    return after_step


METHODS: dict[str, tuple[dict[str, Callable[..., Any]], str]] = {
    "loss NaN": (losses(lambda loss: {"a": loss * NAN}), r"step 0: the loss is nan and"),
    "loss infinite": (losses(lambda loss: {"a": loss + INF}), r"step 0: the loss is inf and"),
    "one of two NaN": (losses(lambda loss: {"a": loss, "b": loss * NAN}), r"the loss is nan \(b nan\) and"),
    "loss a number": (losses(lambda _: {"a": 1.0}), r"loss 'a' must be .*, found 1\.0 \(float\)"),
    "loss a text": (losses(lambda _: {"a": "low"}), r"loss 'a' must be .*, found 'low' \(str\)"),
    "loss a vector": (losses(lambda loss: {"a": loss.repeat(3)}), r"found a tensor of shape \[3\] \(float32\)"),
    "loss an integer": (losses(lambda _: {"a": torch.tensor(3)}), r"floating-point numbers, found tensor\(3\)"),
    "loss a truth": (losses(lambda loss: {"a": loss > 0}), r"floating-point numbers, found tensor\(True\)"),
    "loss complex": (losses(lambda loss: {"a": loss * 1j}), r"floating-point numbers, found tensor\("),
    "loss detached": (losses(lambda loss: {"a": loss.detach()}), r"its losses \(a\) depend on no weight"),
    "loss a constant": (losses(lambda _: {"a": torch.tensor(1.0)}), r"its losses \(a\) depend on no weight"),
    "no loss": (losses(lambda _: {}), r"its losses \(none\) depend on no weight"),
    "losses None": (losses(lambda _: None), r"contrast\(\) must return a dict of losses, found None"),
    "losses an integer": (losses(lambda _: 3), r"contrast\(\) must return a dict of losses, found 3 \(int\)"),
    "losses a tensor": (losses(lambda loss: loss), r"contrast\(\) must return a dict of losses, found tensor\("),
    "losses in a list": (losses(lambda loss: [1, 2]), r"a dict of losses, found \[1, 2\] \(list\)"),
    "loss called step": (losses(lambda loss: {"step": loss}), r"calls a loss 'step' \(str\); expected a text other"),
    "loss called 3": (losses(lambda loss: {3: loss}), r"calls a loss 3 \(int\)"),
    "output None": ({"forward": lambda _: None}, r"forward\(\) must return an Output, found None"),
    "output a number": ({"forward": lambda _: 0.5}, r"forward\(\) must return an Output, found 0\.5 \(float\)"),
    "embeddings in a list": (outputs(lambda e: [1, 2]), r"must return a dict of tensors, found \[1, 2\] \(list\)"),
    "embeddings too few": (
        outputs(lambda e: {name: value[1:] for name, value in e.items()}),
        r"a row for each of 8 pairs as 'image', found a tensor of shape \[7, 16\]",
    ),
    "embeddings too many": (
        outputs(lambda e: e | {"text": e["text"].repeat(2, 1)}),
        r"a row for each of 8 pairs as 'text', found a tensor of shape \[16, 16\]",
    ),
    "embeddings a scalar": (outputs(lambda e: e | {"image": e["image"].mean()}), r"as 'image', found tensor\("),
    "embeddings of NumPy": (
        outputs(lambda e: e | {"image": e["image"].detach().numpy()}),
        r"as 'image', found an array of shape \[8, 16\] \(float32\)",
    ),
    "embeddings of another width": (
        outputs(lambda e: e | {"image": e["image"][:, :-1]}),
        r"contrast\(\) failed on embeddings 'image' \[8, 15\], 'text' \[8, 16\]: RuntimeError: ",
    ),
    "embeddings an integer": (outputs(lambda e: e | {"image": 3}), r"as 'image', found 3 \(int\)"),
    "embeddings NaN": (outputs(lambda e: e | {"image": e["image"] * NAN}), r"step 0: the loss is nan"),
    "other loss a vector": (
        {"forward": lambda output: Output(output.embeddings, {"b": output.embeddings["image"][:, 0]})},
        r"loss 'b' must be a scalar tensor of floating-point numbers, found a tensor of shape \[8\]",
    ),
    "other loss an integer": (
        {"forward": lambda output: Output(output.embeddings, {"b": 2})},  # type: ignore[dict-item]
        r"loss 'b' must be a scalar tensor of floating-point numbers, found 2 \(int\)",
    ),
    "other losses None": (
        {"forward": lambda output: Output(output.embeddings, None)},  # type: ignore[arg-type]
        r"the Output of forward\(\) must return a dict of losses, found None",
    ),
    "keys None": ({"keys": lambda: None}, r"keys\(\) must return a dict of tensors, found None"),
    "keys in a list": ({"keys": lambda: {"a": [1, 2]}}, r"keys\(\) must .* as 'a', found \[1, 2\] \(list\)"),
    "keys too few": ({"keys": lambda: {"a": torch.zeros(3)}}, r"8 pairs as 'a', found a tensor of shape \[3\]"),
    "temperature NaN": ({"temperature_scale": lambda: NAN}, r"temperature_scale must be a finite number, found nan"),
    "temperature a text": ({"temperature_scale": lambda: "hot"}, r"a finite number, found 'hot' \(str\)"),
    "stages None": ({"stages": lambda: None}, r"stages\(\) must return shares .*, found None"),
    "stages that lack": ({"stages": lambda: {"a": 0.5}}, r"with a sum of 1, found \{'a': 0\.5\} \(dict\)"),
    "stages NaN": ({"stages": lambda: {"a": NAN}}, r"with a sum of 1, found \{'a': nan\} \(dict\)"),
    "validation NaN": (
        {"contrast": lambda loss, method: {"a": loss if method.training else loss * NAN}},
        r"step 2: the validation loss is nan",
    ),
    "weights NaN at the end": ({"after_step": spoil(NAN, 6)}, r"step 6: the validation loss is nan"),
}


@pytest.mark.parametrize("kind", METHODS)
def test_what_a_method_returns(kind: str, tmp_path: Path) -> None:
    fault, said = METHODS[kind]
    pairs = Pairs(16)
    with pytest.raises(BenchError, match=r"^method 'faulty' \(Faulty\)") as raised:
        train(faulty(**fault), tmp_path, pairs, pairs)
    assert re.search(said, one_line(raised.value)), raised.value
    assert not (tmp_path / "cost.json").exists()
    counts["of methods"] += 1


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize(("steps", "settings"), [(6, {}), (1, {"checkpoint_every": 0.0}), (3, {"keep": [0.5]})])
def test_weights_that_are_not_finite_are_never_written(
    value: float, steps: int, settings: dict[str, Any], tmp_path: Path
) -> None:
    """After the last step, before a checkpoint to resume from, and before one that is kept."""
    with pytest.raises(
        BenchError, match=rf"step {steps}: its loss is finite, but not the weights after it \(1 tensor:"
    ):
        train(faulty(after_step=spoil(value, steps)), tmp_path, Pairs(16), **settings)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == []
    assert not (tmp_path / "cost.json").exists()
    counts["of weights"] += 1


def test_a_mask_of_infinity_is_no_weight(tmp_path: Path) -> None:
    method = faulty()
    method.register_buffer("mask", torch.full((2, 2), -INF).triu(1))
    assert train(method, tmp_path, Pairs(16))["spikes"] is None


def test_a_method_that_trains_nothing_needs_no_gradient(tmp_path: Path) -> None:
    method = faulty()
    method.fault = losses(lambda loss: {"a": loss.detach() + 0 * sum(p.sum() for p in method.parameters())})
    assert train(method, tmp_path, Pairs(16))["steps"] == 6


def test_encoders_that_are_none() -> None:
    method = faulty()
    method.encoder = lambda: None  # type: ignore[assignment,return-value,method-assign]
    with pytest.raises(
        BenchError, match=r"^method 'faulty' \(Faulty\): encoder\(\) must return a DualEncoder, found None"
    ):
        encoder_of(method)
    good = np.eye(3, 5, dtype=np.float32)
    for features, said in (
        (good[:2], r"image 0 and 2 others: the encoder gives features of shape \[2, 5\]"),
        (good[:, 0], r"features of shape \[3\], expected 2 dimensions, the first of 3"),
        (
            np.where(np.arange(3)[:, None] == 1, np.float32(NAN), good),
            "image 1: the encoder gives features that are not",
        ),
    ):
        with pytest.raises(BenchError, match=said):
            _check_encoded(Encoded(features, good), 3, lambda i: f"image {i}")
        counts["of encoders"] += 1


# Tasks

IDS = np.array(list("abcdef"))


def examples(**columns: Any) -> dict[str, Any]:
    return {"id": IDS, "group": IDS, "score": np.linspace(0, 1, 6)} | columns


def score(value: Any) -> list[Measurement]:
    return [Measurement(examples(), {"score": lambda _: value})]


def of_mean(**more: Any) -> list[Measurement]:
    return [Measurement(examples(), {"score": Mean("score")}, **more)]


def of_columns(**columns: Any) -> list[Measurement]:
    return [Measurement(examples(**columns), {"score": Mean("score")})]


def fails(error: Exception) -> Callable[..., float]:
    def metric(_: object) -> float:
        raise error

    return metric


TASKS: dict[str, tuple[Any, str]] = {
    "NaN": (score(NAN), r"metric 'score' is nan, .*; leave out a metric .* notes\['undefined'\]"),
    "infinite": (score(INF), r"metric 'score' is inf, which is no finite number$"),
    "NaN of NumPy": (score(np.float32(NAN)), r"metric 'score' is nan"),
    "a text": (score("good"), r"metric 'score' must be a number, found 'good' \(str\)"),
    "None": (score(None), r"metric 'score' must be a number, found None"),
    "an array": (score(np.array([0.1, 0.2])), r"must be a number, found an array of shape \[2\] \(float64\)"),
    "a tensor": (score(torch.ones(2)), r"must be a number, found a tensor of shape \[2\] \(float32\)"),
    "complex": (score(1j), r"must be a number, found 1j \(complex\)"),
    "a dict": (score({"a": 1}), r"must be a number, found \{'a': 1\} \(dict\)"),
    "second metric NaN": (
        [Measurement(examples(), {"score": Mean("score"), "other": lambda _: NAN})],
        r"metric 'other' is nan",
    ),
    "a mean of nothing": (
        [Measurement(examples(none=np.zeros(6, bool)), {"score": Mean("score", "none")})],
        r"metric 'score' is nan",
    ),
    "NaN in a draw": (
        [Measurement(examples(), {"score": MeanOverDraws((Mean("score"), lambda _: NAN))})],
        r"metric 'score' is nan",
    ),
    "NaN in a column": (of_columns(score=np.array([0, 1, NAN, 0, 0, 0])), r"metric 'score' is nan"),
    "above its range": (of_columns(score=np.full(6, 50.0)), r"'score' is 50, outside its range of 0 to 1; .*highest="),
    "below its range": (of_columns(score=np.full(6, -2.0)), r"'score' is -2, outside its range of 0 to 1"),
    "a metric that fails": (
        [Measurement(examples(), {"score": fails(ZeroDivisionError("division by zero"))})],
        r"metric 'score' failed: ZeroDivisionError: division by zero",
    ),
    "no such column": ([Measurement(examples(), {"score": Mean("scor")})], r"'score' failed: KeyError: 'scor'"),
    "a number for a metric": ([Measurement(examples(), {"score": 0.5})], r"found 0\.5 \(float\) as 'score'"),  # type: ignore[dict-item]
    "a metric called 3": ([Measurement(examples(), {3: Mean("score")})], r"metrics must be functions .* as 3"),  # type: ignore[dict-item]
    "no metric": ([Measurement(examples(), {})], r"evaluate\(\) yielded no metric"),
    "nothing": ([], r"evaluate\(\) yielded no measurement"),
    "an empty dict": ({}, r"evaluate\(\) must yield measurements, found \{\} \(dict\)"),
    "a dict of numbers": ({"score": 0.5}, r"must yield measurements, found \{'score': 0\.5\} \(dict\)"),
    "returned None": (None, r"must yield measurements, found None"),
    "returned a number": (0.5, r"must yield measurements, found 0\.5 \(float\)"),
    "returned a text": ("good", r"must yield measurements, found 'good' \(str\)"),
    "returned a measurement": (of_mean()[0], r"must yield measurements, found a Measurement: write yield"),
    "yielded None": ([None], r"must yield measurements, found None"),
    "yielded a dict": ([{"score": 0.5}], r"must yield measurements, found \{'score': 0\.5\} \(dict\)"),
    "the same part twice": (of_mean() + of_mean(), r"yielded two measurements of part '' \(str\)"),
    "no examples": (
        [Measurement({name: column[:0] for name, column in examples().items()}, {"score": Mean("score")})],
        r"there are no examples",
    ),
    "no group": (
        [Measurement({"id": IDS, "score": np.ones(6)}, {"score": Mean("score")})],
        r"the examples have no column 'group'",
    ),
    "a short column": (of_columns(score=np.ones(5)), r"column 'score' .* array of 6 values.*shape \[5\] \(float64\)"),
    "a list for a column": (of_columns(score=[0] * 6), r"column 'score' of the examples must be an array.*\(list\)"),
    "examples None": ([Measurement(None, {"score": Mean("score")})], r"examples must be a mapping, found None"),  # type: ignore[arg-type]
    "chance NaN": (of_mean(chance={"score": NAN}), r"chance of metric 'score' is nan, which is no finite number"),
    "chance a text": (of_mean(chance={"score": "half"}), r"chance of metric 'score' must be a number, found 'half'"),
    "chance in percent": (
        of_mean(chance={"score": 50}),
        r"chance of metric 'score' is 50, outside its range of 0 to 1",
    ),
    "majority None": (of_mean(majority={"score": None}), r"majority of metric 'score' must be a number, found None"),
    "a guess NaN": (of_mean(blind={"guess": {"score": NAN}}), r"guess of metric 'score' is nan"),
    "ceiling infinite": (of_mean(ceiling={"score": INF}), r"the ceiling of metric 'score' is inf"),
    "chance a number": (of_mean(chance=0.5), r"chance must be a mapping, found 0\.5 \(float\)"),
    "notes a list": (of_mean(notes=[1]), r"notes must be a mapping, found \[1\] \(list\)"),
    "notes of objects": (of_mean(notes={"a": object()}), r"notes must be what JSON can hold: object is not JSON"),
}


@pytest.mark.parametrize("kind", TASKS)
def test_what_a_task_returns(kind: str) -> None:
    returned, said = TASKS[kind]
    title = "task 'odd' (Odd), dataset 'squares'"
    with pytest.raises(BenchError, match=rf"^{re.escape(title)}: ") as raised:
        checked(iter(returned) if isinstance(returned, list) else returned, title)
    assert re.search(said, one_line(raised.value)), raised.value
    counts["of tasks"] += 1


@pytest.mark.parametrize(
    "measurement",
    [
        *(score(value)[0] for value in (1, np.int64(0), np.float32(0.5), True)),
        of_mean(chance={"score": 1 + 1e-12}, notes={"a": np.int64(3), "b": NAN})[0],
        Measurement(examples(score=np.full(6, 5.0)), {"score": Mean("score", highest=10.0)}),
        Measurement(examples(), {}, notes={"undefined": ["score"]}),
        Measurement(examples(), {"rank": lambda _: 17.5}),
    ],
)
def test_what_a_task_may_return(measurement: Measurement) -> None:
    assert checked([measurement], "t") == [measurement]


# All of it, by bench run

METHOD = """
import torch
from benchmark import Method, register_method

@register_method("faulty")
class Faulty(Method):
    def contrast(self, embeddings, keys):
        {body}
"""
TASK = """
import numpy as np
from benchmark import Mean, Measurement, Task, register_task

@register_task("odd")
class Odd(Task):
    primary = "score"
    needs = frozenset({"label"})

    def evaluate(self, data, seed):
        records = data.records("test")
        examples = {"id": np.array(records.ids), "group": np.array(records.groups)}
        yield Measurement(examples, {"score": lambda _: float("nan")})
"""
COLLAPSED = """to_one = torch.ones(16) / 4
        return {"loss": (1 - embeddings["image"] @ to_one).mean() + (1 - embeddings["text"] @ to_one).mean()}"""
QUICK = ["--suite", "suite.yaml", "--budget", "steps=30"]


def test_a_metric_of_nan_is_a_failed_evaluation(bench: Bench) -> None:
    (bench.folder / "odd.py").write_text(TASK)
    assert (
        bench(
            "run", *QUICK, "--budget", "steps=1", "--methods", "clip", "--plugin", "odd.py", "--tasks", "odd,zero_shot"
        )
        == 1
    )
    said = [
        line for line in bench.out.splitlines() if "task 'odd' (Odd), dataset 'squares': metric 'score' is nan" in line
    ]
    assert said
    assert "failed 1" in bench.out
    assert set(bench.rows().task) == {"zero_shot"}
    counts["of commands"] += 1


def uneven(bench: Bench, red: float, **card: Any) -> None:
    """Make red of a share of the squares in each split; others in turn."""
    rows = [json.loads(line) for line in (bench.folder / "squares.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["colour"] = "red" if number % 10 < 10 * red else ("green", "blue")[number % 2]
    (bench.folder / "squares.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (bench.folder / "squares.yaml").write_text(yaml.safe_dump(CARD | card))


def test_a_model_that_collapses_is_marked(bench: Bench) -> None:
    uneven(bench, 0.6, headline="accuracy")
    (bench.folder / "faulty.py").write_text(METHOD.format(body=COLLAPSED))
    run = ["--methods", "faulty", "--plugin", "faulty.py", "--tasks", "zero_shot"]
    assert bench("run", *QUICK, *run, "--set", "training.learning_rate=0.01") == 0, bench.out + bench.err
    rows = bench.rows()
    primary = rows[rows.primary.astype(bool)].iloc[0]
    assert primary.metric == "accuracy"
    (notes,) = (json.loads(path.read_text())[""] for path in bench.folder.rglob("notes.json"))
    assert notes["embeddings"]["mean_cosine"] > 0.999
    assert bench("report") == 0
    page = " ".join((bench.folder / "results" / "report" / "report.md").read_text().replace("\\", "").split())
    assert "§: its interval does not lie above what guesses get" in page
    assert "Embeddings of all test images nearly the same (mean cosine above 0.999): faulty on squares." in page
    assert f"One answer to all test examples: squares '{notes['only_answer']}' (faulty)." in page
    assert re.search(r"\| faulty \| [\d.]+§", page), page


@pytest.mark.parametrize(
    ("card", "labels", "expected"),
    [
        ({}, [0, 0, 0, 1, 2], "balanced_accuracy"),
        ({}, [0, 0, 1, 2], "accuracy"),  # exactly half
        ({}, [0, 0, 0, 1, 2, -1, -1], "balanced_accuracy"),  # of those that are known
        ({}, [-1, -1], "accuracy"),
        ({"headline": "accuracy"}, [0, 0, 0, 1], "accuracy"),
        ({"headline": "macro_f1"}, [0, 1], "macro_f1"),
        ({"headline": "average_precision"}, [0, 0, 0, 1], "accuracy"),  # not measured
        ({"multi_label": True}, [[1, 0], [1, 0]], "macro_auroc"),
    ],
)
def test_the_headline(card: dict[str, Any], labels: list[Any], expected: str) -> None:
    of_card = SimpleNamespace(**({"headline": None, "multi_label": False, "provides": {"label"}} | card))
    data: Any = SimpleNamespace(card=of_card, labels=lambda _: np.array(labels))
    measured = {"accuracy", "balanced_accuracy", "macro_f1", "macro_auroc"}
    assert headline(TASKS_OF_NAMES["zero_shot"], data, measured) == expected
    assert headline(TASKS_OF_NAMES["linear_probe"], data, measured) == expected
    of_points = {f"{name}@10%" for name in ("accuracy", "balanced_accuracy", "macro_auroc")}
    few = {"macro_f1": "accuracy"}.get(expected, expected)
    assert headline(TASKS_OF_NAMES["few_shot"], data, of_points) == f"{few}@10%"


def test_the_headline_of_uneven_classes(bench: Bench) -> None:
    uneven(bench, 0.6)
    assert bench("run", *QUICK, "--budget", "steps=1", "--methods", "clip", "--tasks", "zero_shot,few_shot") == 0
    rows = bench.rows().set_index(["task", "metric"])
    assert set(rows[rows.primary.astype(bool)].index) == {
        ("zero_shot", "balanced_accuracy"),
        ("few_shot", "balanced_accuracy@10%"),
    }
    assert rows.majority["zero_shot", "balanced_accuracy"] == pytest.approx(1 / 3)
    assert rows.majority["zero_shot", "accuracy"] == pytest.approx(0.6)
    (folder,) = {path.parent for path in bench.folder.rglob("examples.parquet") if "correct@10%/0" in columns(path)}
    kept = pd.read_parquet(folder / "examples.parquet")
    of_draws = [kept.groupby("label")[name].mean().mean() for name in kept.columns if name.startswith("correct@10%/")]
    assert rows.value["few_shot", "balanced_accuracy@10%"] == pytest.approx(np.mean(of_draws))


def columns(path: Path) -> list[str]:
    return list(pd.read_parquet(path).columns)


def test_the_mean_over_classes_is_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 4, (2, 60))
    label[label == 3] = 0
    correct = {"id": np.arange(60), "label": label, "correct": (label == predicted).astype(float)}
    metric = MeanOverClasses("correct", 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class that is predicted and not there
        assert metric(correct) == pytest.approx(balanced_accuracy_score(label, predicted))
        drawn = rng.integers(0, 60, 60)
        weights = np.bincount(drawn, minlength=60)[None]
        expected = balanced_accuracy_score(label[drawn], predicted[drawn])
    assert metric.weighted(correct, weights.astype(float))[0] == pytest.approx(expected)
    assert [side.sum() for side, of_one in metric.sides(correct) if of_one] == np.bincount(label)[:3].tolist()


def test_the_scores_of_the_majority() -> None:
    train, test = torch.tensor([2, 2, 0, -1]), torch.tensor([2, 2, 2, 0, 1, -1])
    truth, answered = [2, 2, 2, 0, 1], [2] * 5
    expected = {
        "accuracy": 0.6,
        "balanced_accuracy": balanced_accuracy_score(truth, answered),
        "macro_f1": f1_score(truth, answered, average="macro"),
    }
    assert majority_scores(train, test) == pytest.approx(expected)
    assert majority_scores(train[3:], test) == pytest.approx(expected)  # the most common one of test
    nowhere = majority_scores(torch.tensor([3]), test)
    assert nowhere == {"accuracy": 0.0, "balanced_accuracy": 0.0, "macro_f1": 0.0}


def test_a_headline_that_no_task_has(bench: Bench) -> None:
    edit(bench.folder / "squares.yaml", headline="balanced_acuracy")
    assert bench("run", *QUICK, "--methods", "clip") == 2
    assert re.search(
        r"headline of dataset 'squares', .* 'balanced_acuracy'; did you mean 'balanced_accuracy'\?", bench.err
    )


# Collapse and random weights


def test_how_different_embeddings_are() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 5)) + 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (vectors @ vectors.T)[~np.eye(40, dtype=bool)]
    values = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
    spread = spread_of(vectors.astype(np.float32))
    assert spread is not None
    assert spread["mean_cosine"] == pytest.approx(cosines.mean(), abs=1e-6)
    assert spread["effective_rank"] == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-5)
    assert spread_of(np.repeat(vectors[:1], 40, axis=0)) == {
        "mean_cosine": pytest.approx(1.0),
        "effective_rank": pytest.approx(0.0, abs=5),
    }
    assert spread_of(vectors[:1]) is None


def test_the_only_answer() -> None:
    def answered(predicted: list[int], label: list[int]) -> str:
        columns = {"predicted": np.array(predicted), "label": np.array(label)}
        return only_answer(Measurement(columns, {}, gallery=Gallery("score", classes=("a", "b"))))

    assert answered([1, 1, 1], [0, 1, 1]) == "b"
    assert answered([1, 0, 1], [0, 1, 1]) == ""
    assert answered([1, 1, 1], [1, 1, 1]) == ""
    words = {"answer": np.array(["yes", "yes"]), "true": np.array(["yes", "no"])}
    assert only_answer(Measurement(words, {}, gallery=Gallery("score", answer="answer", truth="true"))) == "yes"
    assert only_answer(Measurement(words, {}, gallery="nothing to see")) == ""


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            "open_clip:RN50",
            r"no weights named; expected open_clip:RN50/TAG .*RN50/random .*tags: openai, yfcc15m, cc12m",
        ),
        ("open_clip:RN50/", r"no weights named"),
        ("open_clip:RN50/opnai", r"unknown pretrained tag of RN50 'opnai'; did you mean 'openai'\?"),
        ("timm:test_vit4", r"timm has no weights of 'test_vit4'; name a checkpoint: timm:test_vit4/FILE, or .*/random"),
        ("timm:resnet10t.c3_in1", r"unknown pretrained tag of resnet10t 'c3_in1'; did you mean 'c3_in1k'\?"),
    ],
)
def test_weights_that_are_not_named_are_not_random(spec: str, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        external_model(spec)
    counts["of names"] += 1


@pytest.mark.parametrize("spec", ["open_clip:RN50/random", "timm:test_vit/random"])
def test_random_weights_are_asked_for(spec: str) -> None:
    model = external_model(spec)
    assert (model.name, model.pretrained) == (spec, False)
    assert [each.name for each in model.baselines(0, "s")] == ["raw pixels"]


# Spikes


def curve(
    *jumps: tuple[int, float], steps: int = 200, noise: float = 0.1, seed: int = 0
) -> list[tuple[str, int, float]]:
    """A loss that falls from 3.5 to 1 with noise, and what jumps add at their steps."""
    rng, added = np.random.default_rng(seed), dict(jumps)
    return [
        ("pretrain", step, 1 + 2.5 * math.exp(-step / 50) + noise * rng.normal() + added.get(step, 0.0))
        for step in range(1, steps + 1)
    ]


def test_a_spike_of_the_loss_is_found() -> None:
    losses = curve((120, 4.0), (121, 4.0), (180, 4.0))
    spikes = find_spikes(losses)
    assert spikes is not None
    assert (spikes["steps"], spikes["first"]) == (3, 120)
    assert spikes["loss"] == losses[119][2]
    assert spikes["median"] == np.median([loss for *_, loss in losses[69:119]])
    assert spiked(spikes).startswith("the loss rose suddenly at 3 steps, first at step 120, to 5.")
    costs = pd.DataFrame({"line": ["clip", "msd"], "seed": [0, 1], "spikes": [spikes, None]})
    assert spikes_said(costs).startswith(" clip, seed 0: the loss rose suddenly at 3 steps")
    assert "msd" not in spikes_said(costs)


def test_a_noisy_loss_has_no_spikes() -> None:
    assert [find_spikes(curve(seed=seed, noise=noise)) for seed in range(10) for noise in (0.0, 0.1, 0.3)] == [
        None
    ] * 30
    rng = np.random.default_rng(0)
    heavy = [("pretrain", step, float(loss)) for step, loss in enumerate(rng.exponential(0.1, 300), 1)]
    assert find_spikes(heavy) is None


def test_stages_are_not_compared() -> None:
    first, second = curve(steps=100), [("second", 100 + step, 50.0) for step in range(1, 40)]
    assert find_spikes([*first, *second]) is None
    assert find_spikes([("a", step, -1.0 + (5 if step == 30 else 0)) for step in range(1, 41)]) is not None
    assert find_spikes(curve((10, 9.0))) is None  # too few steps before it


def test_a_spike_is_said_once(bench: Bench) -> None:
    body = """Faulty.step = getattr(Faulty, "step", 0) + 1
        logits = 5 * embeddings["image"] @ embeddings["text"].T
        loss = -logits.log_softmax(dim=1).diagonal().mean()
        return {"loss": loss + (40 if Faulty.step in (34, 35) else 0)}"""
    (bench.folder / "faulty.py").write_text(METHOD.format(body=body))
    run = ["--methods", "faulty", "--plugin", "faulty.py", "--tasks", "zero_shot", "--budget", "steps=40"]
    assert bench("run", "--suite", "suite.yaml", *run, "--set", "training.validations=0") == 0, bench.out + bench.err
    assert bench.out.replace("\n", " ").count("the loss rose suddenly at ") == 1
    assert bench("report", "--details") == 0
    assert "faulty, seed 0: the loss rose suddenly at" in " ".join(bench.out.split())
