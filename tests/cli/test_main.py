"""The program as a user types it, on a small dataset of coloured squares: run, resume, plan, report, list, errors."""

import json
import re
import shutil
from typing import Any

import pandas as pd
import pytest
import yaml

from benchmark.common.errors import BenchError
from benchmark.method import METHODS
from benchmark.plan.resolve import resolve_device
from benchmark.store.store import Store
from tests.squares import MODEL, PLUGIN, SUITE, Bench, scenario


def scores(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    columns = ["dataset", "task", "part", "metric", "seed", "value", "low", "high", "n"]
    return rows[rows.method == method][columns].sort_values(columns[:5]).reset_index(drop=True)


def test_run_then_report(bench: Bench) -> None:
    assert bench("run", "--suite", "suite.yaml") == 0, bench.out + bench.err
    assert "trained 2, evaluated 10, done before 0, failed 0" in bench.out
    rows = bench.rows()
    assert set(rows.task) == {"zero_shot", "retrieval", "linear_probe", "few_shot", "vqa"}
    assert set(rows.method) == {"msd", "clip"}
    probe = rows[(rows.task == "linear_probe") & (rows.metric == "accuracy")]
    assert (probe.value > 0.9).all()
    assert (probe.low <= probe.value).all()
    assert (probe.value <= probe.high).all()
    questions = rows[(rows.task == "vqa") & (rows.method == "clip")].set_index("metric")["n"]
    assert questions[["accuracy", "accuracy_open", "accuracy_closed"]].tolist() == [30, 5, 25]
    assert list(bench.folder.glob("results/cells/*/evaluations/*/examples*.parquet"))

    assert bench("run", "--suite", "suite.yaml") == 0
    assert "trained 0, evaluated 0, done before 12, failed 0" in bench.out
    pd.testing.assert_frame_equal(bench.rows(), rows)

    assert bench("plan", "--suite", "suite.yaml", "--seeds", "2") == 0
    assert bench.out.count("done") == 2
    assert bench.out.count("train ") >= 2

    assert bench("report") == 0
    assert max(map(len, bench.out.splitlines())) <= 80 or "/" in bench.out
    assert bench.out.startswith("Compared with ")
    for word in ("zero_shot", "retrieval", "linear_probe", "few_shot", "vqa", "msd", "clip", "overview", "FLOPs"):
        assert word in bench.out
    assert "in points" not in bench.out
    last = "--details prints all tables; report.md has them"
    assert bench.out.splitlines()[-3:] == [last, "results/report/report.md", "results/report/index.html"]
    assert bench("report", "--details") == 0
    assert "--details" not in bench.out
    assert max(map(len, bench.out.splitlines())) <= 80 or "/" in bench.out
    for word in ("zero_shot", "retrieval", "linear_probe", "few_shot", "vqa", "msd", "clip", "chance"):
        assert word in bench.out
    for metric in ("accuracy", "accuracy_open", "accuracy_closed", "zero_shot_accuracy"):
        assert f"\nvqa: {metric}, in percent\n" in bench.out
    report = bench.folder / "results" / "report"
    assert {"report.md", "results.csv", "costs.csv"} <= {path.name for path in report.iterdir()}
    classes = pd.read_csv(report / "classes.csv")
    support = classes[classes.task == "zero_shot"].groupby("method")["support"].apply(list)
    assert support.to_dict() == {"clip": [10, 10, 10], "msd": [10, 10, 10]}
    assert list(report.glob("**/*.png"))
    assert list(report.glob("**/*.svg"))


def test_baselines_stand_below_the_methods(bench: Bench) -> None:
    suite = yaml.safe_load((bench.folder / "suite.yaml").read_text()) | {"baselines": True}
    (bench.folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    quick = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "linear_probe,retrieval"]
    quick += ["--set", "training.samples=96"]
    assert bench("run", *quick) == 0, bench.out
    # Retrieval needs texts, which raw pixels do not have.
    assert "trained 1, evaluated 5, done before 0, failed 0" in bench.out
    rows = bench.rows()
    assert set(rows[rows.role == "baseline"].method) == {"initial weights (random)", "raw pixels"}
    assert set(rows[rows.method == "raw pixels"].task) == {"linear_probe"}
    # Squares of one colour each: their colour gives them away.
    pixels = rows[(rows.method == "raw pixels") & (rows.metric == "accuracy")]
    assert (pixels.value == 1).all()
    assert (pixels.majority < 0.5).all()
    initial = rows[rows.method == "initial weights (random)"]
    assert set(rows[rows.method == "clip"].start) == set(initial.cell)
    assert set(Store(bench.folder / "results").costs().method) == {"clip"}

    assert bench("plan", *quick) == 0
    assert bench.out.count("done") == 3
    assert bench("run", *quick) == 0
    assert "trained 0, evaluated 0, done before 6, failed 0" in bench.out
    assert bench("report") == 0
    assert "Compared with the model before training, for these weights" in " ".join(bench.out.split())
    table = bench.out[bench.out.index("overview") :]
    assert table.index("clip") < table.index("initial") < table.index("raw pixels") < table.index("highest guess")
    assert bench("report", "--details") == 0
    table = bench.out[bench.out.index("linear_probe: ") :]
    assert table.index("clip") < table.index("initial") < table.index("raw pixels") < table.index("majority")


def test_methods_of_different_runs_are_compared_on_the_same_patients(bench: Bench) -> None:
    quick = ["--suite", "suite.yaml", "--tasks", "linear_probe", "--set", "training.samples=96"]
    for method in ("clip", "msd"):
        assert bench("run", *quick, "--methods", method) == 0
    assert bench("report", "--reference", "clip", "--details", "--latex") == 0
    report = bench.folder / "results" / "report"
    assert {path.name for path in (report / "latex").iterdir()} == {"linear_probe.tex", "references.bib"}
    assert (report / "plots" / "linear_probe.pdf").is_file()
    assert "difference to clip, in points" in bench.out
    assert "not tested" not in bench.out
    assert max(map(len, bench.out.splitlines())) <= 80 or "/" in bench.out
    assert bench("report", "--reference", "msdd") == 2
    assert "did you mean 'msd'" in bench.err


def test_initial_weights_are_the_cards_alone(bench: Bench) -> None:
    """Another learning rate and another suite start from the same weights, which are trained once."""
    training = {"samples": 64, "batch_size": 16, "micro_batch": 16}
    init = {"datasets": ["squares.yaml"], "method": "clip", "training": training}
    (bench.folder / "general.yaml").write_text(yaml.safe_dump(MODEL | {"init": init}))
    settings = {"steps": 3, "batch_size": 24, "weight_decay": 0.3, "augmentation": {"flip": 0.5}}
    suite = SUITE | {"training": settings, "baselines": True}
    (bench.folder / "other.yaml").write_text(yaml.safe_dump(suite))
    quick = ["--model", "general.yaml", "--methods", "clip", "--tasks", "zero_shot"]
    folder = bench.folder.parent / "general-cache"
    bench.monkeypatch.setenv("BENCH_CACHE", str(folder))
    for more in (
        ["--suite", "suite.yaml", "--set", "training.samples=96"],
        ["--suite", "suite.yaml", "--set", "training.samples=96", "--set", "training.learning_rate=1e-2"],
        ["--suite", "other.yaml"],
    ):
        assert bench("run", *quick, *more) == 0, bench.out + bench.err
        assert len(list(folder.glob("initial/*/model.safetensors"))) == 1
        assert bench("plan", *quick, *more) == 0
        assert re.search(r"clip \(initial weights\)\s+1\s+done", bench.out), bench.out
    rows = bench.rows()
    assert rows[rows.method == "clip"].cell.nunique() == 3
    assert rows[rows.method == "initial weights"].cell.nunique() == rows.start.nunique() == 1
    first = [json.loads(path.open().readline()) for path in bench.folder.glob("results/cells/[!.]*/log.jsonl")]
    assert len({line["loss"] for line in first if line["samples"] == 32}) == 1


def test_a_scenario_trains_twice_and_reports_the_difference(bench: Bench) -> None:
    arguments = scenario(bench)
    assert bench("plan", *arguments) == 0
    assert bench.out.count(" train ") == 2
    assert "few" in bench.out
    assert bench("run", *arguments) == 0, bench.out + bench.err
    assert "trained 2, evaluated 2, done before 0, failed 0" in bench.out
    rows = bench.rows()
    assert set(zip(rows.pretraining, rows.condition)) == {("squares", 72), ("few", 36)}
    assert bench("run", *arguments) == 0
    assert "trained 0, evaluated 0, done before 4" in bench.out
    # What is plain there may come from a suite that poses no scenario, whose line it then is.
    shutil.rmtree(bench.folder / "results")
    plain = ["--suite", "suite.yaml", *arguments[2:]]
    assert bench("run", *plain) == 0
    assert bench("run", *arguments) == 0
    assert "trained 1, evaluated 1, done before 2" in bench.out
    assert bench("report", "--details") == 0
    value = bench.rows().query("primary").set_index("pretraining").value
    lost = f"{100 * (value['few'] - value['squares']):+.1f}".replace("-", "−")
    main, _, rest = bench.out.partition("scenario small: accuracy, in percent")
    assert "clip" in main
    assert "· 36" not in main
    scores, _, differences = rest.partition("scenario small: difference to the same method at 72, in points")
    assert f"clip · 72 {100 * value['squares']:.1f}" in " ".join(scores.split())
    assert f"clip · 36 {lost}" in " ".join(differences.split())
    assert "not tested" not in differences
    assert "Trained on squares (72), few (36), 96 pairs seen;" in " ".join(scores.split())


def test_a_scenario_in_the_test_images_is_paired(bench: Bench) -> None:
    """The same squares under another name: no difference, and no interval about it."""
    posed = {"name": "shift", "question": "Does the name matter?", "varies": "name", "condition": "other name"}
    posed |= {"plain": {"condition": "own name", "dataset": "squares.yaml"}}
    arguments = scenario(bench, pretraining=["squares.yaml"], datasets=["copy.yaml"], scenario=posed)
    assert bench("run", *arguments, "--tasks", "retrieval") == 0, bench.out + bench.err
    assert "trained 1, evaluated 2, done before 0, failed 0" in bench.out
    assert (bench.rows().low < bench.rows().high).any()
    assert set(zip(bench.rows().dataset, bench.rows().condition)) == {("squares", "own name"), ("copy", "other name")}
    # Without lines of its own tables, a report has no overview, and prints all.
    assert bench("report") == 0
    assert "in points" in bench.out
    assert "--details" not in bench.out
    assert bench("report", "--details") == 0
    # All images are the same, so that no patient differs: what others might is the bound of Clopper and Pearson.
    assert "+0.0 −21.8 to +21.8 no difference shown" in " ".join(bench.out.split())
    assert "squares (own name), copy (other name): images of the same patients" in " ".join(bench.out.split())


def test_same_seed_same_rows_and_methods_do_not_touch_each_other(bench: Bench) -> None:
    quick = ["--suite", "suite.yaml", "--tasks", "zero_shot,linear_probe", "--set", "training.samples=96"]
    assert bench("run", *quick, "--methods", "clip") == 0
    alone = scores(bench.rows(), "clip")
    shutil.rmtree(bench.folder / "results")
    assert bench("run", *quick, "--plugin", "hinge.py", "--methods", "hinge,msd,clip") == 0
    pd.testing.assert_frame_equal(scores(bench.rows(), "clip"), alone)
    assert len(scores(bench.rows(), "hinge")) == len(alone)


def test_adding_a_task_trains_and_encodes_nothing_again(bench: Bench) -> None:
    quick = ["--suite", "suite.yaml", "--methods", "clip", "--set", "training.samples=96"]
    assert bench("run", *quick, "--tasks", "linear_probe") == 0
    embeddings = {p: p.stat().st_mtime_ns for p in bench.folder.glob("results/cells/*/embeddings/images-*/*.npy")}
    assert embeddings
    assert bench("run", *quick, "--tasks", "linear_probe,few_shot") == 0
    assert "trained 0, evaluated 1" in bench.out
    assert {p: p.stat().st_mtime_ns for p in embeddings} == embeddings


def test_an_interrupted_run_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "zero_shot"]
    quick += ["--set", "training.checkpoint_every=0"]
    from benchmark.execution import materials

    real = materials.pretrain

    def killed(*args: Any, progress: Any, **kwargs: Any) -> Any:
        def die(position: Any) -> None:
            if position.step == 7:
                raise KeyboardInterrupt

        return real(*args, progress=die, **kwargs)

    monkeypatch.setattr(materials, "pretrain", killed)
    assert bench("run", *quick) == 130
    assert "resumes from the last checkpoint" in bench.out
    assert not list(bench.folder.glob("results/cells/[!.]*"))
    monkeypatch.setattr(materials, "pretrain", real)
    assert bench("plan", *quick) == 0
    assert "resume" in bench.out
    assert bench("run", *quick) == 0
    log = next(bench.folder.glob("results/cells/[!.]*/log.jsonl")).read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, 21))


def test_a_main_number_that_is_missing_is_said(bench: Bench) -> None:
    quick = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "retrieval", "--set", "training.samples=96"]
    assert bench("run", *quick, "--set", "retrieval.k=[500]") == 0
    assert "retrieval on squares: too few examples or candidates to compute recall@10" in bench.out.replace("\n", " ")


def test_one_failing_cell_does_not_stop_the_others(bench: Bench) -> None:
    bad = PLUGIN.replace('("hinge")', '("bad")').replace("image + text", "image * float('nan')")
    (bench.folder / "bad.py").write_text(bad)
    quick = ["--suite", "suite.yaml", "--tasks", "zero_shot", "--set", "training.samples=96", "--plugin", "bad.py"]
    assert bench("run", *quick, "--methods", "bad,clip") == 1
    assert "bad, seed 0: method 'bad' (Hinge), step 0: the loss is nan" in bench.out.replace("\n", " ")
    assert "trained 1, evaluated 1, done before 0, failed 1" in bench.out
    assert set(bench.rows().method) == {"clip"}


def test_seeds_and_variants_are_rows_of_their_own(bench: Bench) -> None:
    quick = ["--suite", "suite.yaml", "--methods", "msd", "--tasks", "zero_shot", "--set", "training.samples=96"]
    assert bench("run", *quick, "--seeds", "2", "--set", "msd.momentum=0.9") == 0
    assert bench("run", *quick) == 0
    rows = bench.rows()
    assert set(zip(rows.seed, rows.variant)) == {
        (0, "training.samples=96, momentum=0.9"),
        (1, "training.samples=96, momentum=0.9"),
        (0, "training.samples=96"),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--methods", "clp"], "unknown method 'clp'; did you mean 'clip'?"),
        (["run", "--tasks", "retrival"], "unknown task 'retrival'; did you mean 'retrieval'?"),
        (["run", "--tasks", "vqa:squars"], "unknown dataset 'squars'"),
        (["run", "--suite", "dmo"], "unknown suite 'dmo'; did you mean 'demo'?"),
        (["run", "--model", "tinny"], "unknown model 'tinny'; did you mean 'tiny'?"),
        (["run", "--pretraining", "phantoms"], "unknown dataset 'phantoms'; did you mean 'phantom'?"),
        (["run", "--set", "msd.momentun=1"], "unknown option 'momentun'; did you mean 'momentum'?"),
        (
            ["run", "--set", "siglip.foo=1"],
            "--set siglip.foo: method 'siglip' is not in this run; its methods: msd, clip",
        ),
        (["plan", "--set", "msd.momentum=0.9", "--methods", "clip"], "arm 'msd' is not in this run; its arms: clip"),
        (["run", "--grid", "siglip.bias=1,2"], "--grid siglip.bias: method 'siglip' is not in this run"),
        (["run", "--set", "vqa.c=[1]", "--tasks", "retrieval"], "task 'vqa' is not in this run; its tasks: retrieval"),
        (["run", "--set", "captioning.beams=2", "--tasks", "vqa"], "task 'captioning' is not in this run; its tasks"),
        (["run", "--set", "captioning.layers=2", "--methods", "clip"], "method 'captioning' is not in this run"),
        (["eval", "--model", "small.yaml", "--set", "msd.momentum=0.9"], "'msd' is not in this run; its arms"),
        (["run", "--set", "msd.momentum=fast"], "option momentum: "),
        (["run", "--set", "msd.targets=crss"], "unknown option targets 'crss'; did you mean 'cross'?"),
        (["run", "--set", "training.batch_size=200"], "batch_size is 200, but there are only 72 training pairs"),
        (["run", "--device", "cudda"], "error: unknown value of --device 'cudda'; did you mean 'cuda'? Known: auto,"),
        (["run", "--on-bad-data", "skp"], "error: unknown value of --on-bad-data 'skp'; did you mean 'skip'?"),
        (["run", "--set", "training.batch_size=abc"], "error: --set training.batch_size=abc: training.batch_size: "),
        (["run", "--set", "training.precision=fp3"], "unknown training.precision 'fp3'; did you mean 'fp32'?"),
        (["run", "--budget", "samples=0"], "error: --budget samples=0: training.samples: "),
        (["run", "--grid", "training.batch_size=32,abc"], "error: --grid training.batch_size=abc: training.batch_size"),
        (["run", "--set", "model.embed_dimm=8"], "--set model.{embed_dimm}: unknown key 'embed_dimm'; did you mean"),
        (["run", "--tasks", "retrieval:"], "--tasks retrieval:: expected a dataset after the colon, or only retrieval"),
        (["run", "--plugin", "nothing.py"], "no such file"),
        (["run", "--methods", ","], "expected names separated by commas"),
        (["run", "--scenario", "nosy"], "unknown scenario 'nosy'; did you mean 'noisy'? Known: 1k, 256, 4k, noisy"),
        (
            ["plan", "--scenario", "noisy=2"],
            "error: --scenario noisy=2: expected a number less than or equal to 1, found 2",
        ),
        (
            ["run", "--results", "suite.yaml"],
            "the results folder suite.yaml is or lies below a file, not a folder; choose",
        ),
        (["run", "--results", "suite.yaml/x"], "choose another with --results"),
        (["list", "method"], "unknown list 'method'; did you mean 'methods'?"),
        (["report", "--results", "nowhere"], "error: no results in nowhere; run `bench run"),
    ],
)
def test_a_users_mistake_ends_in_two_lines(bench: Bench, arguments: list[str], message: str) -> None:
    suite = ["--suite", "suite.yaml"] if arguments[0] == "run" and "--suite" not in arguments else []
    assert bench(*arguments, *suite) == 2
    assert message in bench.err
    assert len(bench.err.strip().splitlines()) <= 2
    assert "Traceback" not in bench.err


def test_options_of_a_suite_for_what_is_not_in_the_run(bench: Bench) -> None:
    quick = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "retrieval"]
    for options, message in (
        ({"msd": {"momentum": 0.9}, "vqa": {}}, ""),
        ({"msd": {"momentun": 0.9}}, "method 'msd': unknown option 'momentun'; did you mean 'momentum'?"),
        ({"vqa": {"typed": 0.9}}, "task 'vqa': unknown option 'typed'"),
        ({"captioning": {"layer": 2}}, "method and task 'captioning': unknown option 'layer'; did you mean 'layers'?"),
    ):
        (bench.folder / "suite.yaml").write_text(yaml.safe_dump(SUITE | {"options": options}))
        assert bench("plan", *quick) == (2 if message else 0)
        assert message in bench.err


def test_a_device_that_is_none() -> None:
    with pytest.raises(BenchError, match=r"unknown device \(--device\) 'cudda'; did you mean 'cuda'"):
        resolve_device("cudda")


def test_bad_data_is_found_before_training(bench: Bench) -> None:
    (bench.folder / "90.png").write_bytes(b"no image")
    assert bench("run", "--suite", "suite.yaml") == 2
    assert "row 91" in bench.err
    assert not list(bench.folder.glob("results/cells/*"))
    quick = ["--methods", "clip", "--tasks", "zero_shot", "--set", "training.samples=96"]
    assert bench("run", "--suite", "suite.yaml", *quick, "--on-bad-data", "skip") == 0
    assert "left out 1" in bench.out


def test_a_grid_runs_the_product_and_reports_rows(bench: Bench) -> None:
    quick = ["--suite", "suite.yaml", "--methods", "clip,msd", "--tasks", "zero_shot", "--set", "training.samples=96"]
    grid = ["--grid", "msd.targets=cross,hard", "--grid", "training.batch_size=16,32"]
    assert bench("run", *quick, *grid) == 0
    rows = bench.rows()
    trained = rows[rows.method.isin(["clip", "msd"])]
    assert set(zip(trained.method, trained.variant)) == {
        *(("clip", f"training.samples=96, training.batch_size={size}") for size in (16, 32)),
        *(
            ("msd", f"training.samples=96, targets={targets}, training.batch_size={size}")
            for targets in ("cross", "hard")
            for size in (16, 32)
        ),
    }
    assert bench("plan", *quick, *grid) == 0
    assert bench.out.count(" done") >= 6
    assert bench("report") == 0
    assert "targets=hard" in (bench.folder / "results/report/report.md").read_text()
    assert bench("run", *quick, "--grid", "zero_shot.rare_below=1,2") == 2
    assert "a grid can only vary training settings, options of methods and arms" in bench.err


def test_plan_refuses_a_method_whose_model_lacks_what_it_needs(bench: Bench) -> None:
    model = MODEL | {"image": {"kind": "timm", "name": "test_mambaout", "config": {"depths": [1, 1]}}}
    (bench.folder / "pooled.yaml").write_text(yaml.safe_dump(model))
    methods = ["--suite", "suite.yaml", "--methods", "filip,flip,clip"]
    assert bench("plan", *methods, "--model", "pooled.yaml") == 1
    flat = " ".join(bench.out.split())
    assert "cannot run: method 'filip' needs image_tokens: model 'pooled' does not provide it" in flat
    assert "cannot run: method 'flip' needs patch_dropout: model 'pooled' does not provide it" in flat
    assert bench("run", *methods, "--model", "pooled.yaml") == 2
    assert "needs image_tokens" in bench.err
    assert bench("plan", *methods) == 0
    # All that there are: few, because a plan counts the operations of each.
    few = {name: METHODS[name] for name in ("filip", "flip", "siglip")}
    bench.monkeypatch.setattr(METHODS, "_classes", few)
    assert bench("plan", "--suite", "suite.yaml", "--methods", "all", "--model", "pooled.yaml") == 0
    flat = " ".join(bench.out.split())
    assert "left out: method 'filip' needs image_tokens: model 'pooled' does not provide it" in flat
    assert "siglip 1 train" in flat


def test_weights_that_are_not_here_are_said_and_without_a_network_nothing_starts(bench: Bench) -> None:
    bench.monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(bench.folder / "hub"))
    bench.monkeypatch.setattr("benchmark.execution.runner.hub_answers", lambda: False)
    bench.monkeypatch.setenv("BENCH_CACHE", str(bench.folder / "cache"))
    # One micro-batch a step: the plan counts the operations of a large model.
    arguments = ["--suite", "suite.yaml", "--methods", "clip", "--model", "vit-b-16"]
    arguments += ["--set", "training.micro_batch=32"]
    weights = "weights 'openai' of open_clip's 'ViT-B-16': not on this machine"
    assert bench("plan", *arguments) == 0
    assert [line for line in bench.out.splitlines() if "not on this" in line] == [f"{weights}; will be downloaded"]
    before = list(bench.folder.glob("cache/**/*"))
    assert bench("run", *arguments) == 2
    assert f"error: {weights}, and the Hugging Face Hub cannot be reached." in bench.err
    assert len(bench.err.splitlines()) == 1
    assert list(bench.folder.glob("cache/**/*")) == before
    assert not (bench.folder / "results/cells").exists()
    assert bench("plan", *arguments, "--model", "small.yaml") == 0
    assert "not on this machine" not in bench.out


LISTED = {"methods": "msd", "tasks": "few_shot", "datasets": "phantom-cxr", "models": "vit-b-16", "suites": "demo"}


@pytest.mark.parametrize("what", LISTED)
def test_lists(bench: Bench, what: str) -> None:
    assert bench("list", what) == 0
    assert LISTED[what] in bench.out


def test_the_list_of_suites_says_what_scenarios_ask(bench: Bench) -> None:
    assert bench("list", "suites") == 0
    assert "it asks: What does another scanner cost?" in " ".join(bench.out.split())


@pytest.mark.parametrize(
    "command",
    [["run"], ["eval"], ["export"], ["clean"], ["plan"], ["report"], ["list"], ["data", "show"], ["data", "check"]],
)
def test_every_help_has_an_example(bench: Bench, command: list[str]) -> None:
    assert bench(*command, "--help") == 0
    assert f"Example: bench {' '.join(command)}" in bench.out


def test_data_check_and_show(bench: Bench) -> None:
    assert bench("data", "check", "squares.yaml") == 0
    assert "squares: no errors" in bench.out
    assert bench("data", "show", "squares.yaml", "--output", "sheet.png") == 0
    assert (bench.folder / "sheet.png").stat().st_size > 1000
