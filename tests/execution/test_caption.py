"""Captioning as a user types it: run, plan, caption, and what is refused; on the coloured squares of test_cli."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from benchmark.config.load import load_run_config
from benchmark.plan.make import make_plan
from tests.models.make import save_hugging_face
from tests.squares import Bench

SMALL = [
    "--suite",
    "suite.yaml",
    "--set",
    "captioning.queries=4",
    "--set",
    "training.samples=960",
    "--set",
    "captioning.captioning_weight=4",
]


def test_run_plan_and_caption(bench: Bench) -> None:
    assert bench("run", *SMALL, "--methods", "captioning,clip", "--tasks", "captioning,retrieval") == 0, bench.out
    rows = bench.rows()
    written = rows[rows.task == "captioning"]
    assert set(written.method) == {"captioning"}
    assert set(written.metric) == {"rouge_l", "bleu_4", "cider_d"}
    assert {"captioning", "clip"} <= set(rows[rows.task == "retrieval"].method)
    primary = written[written.primary].iloc[0]
    assert primary.metric == "rouge_l"
    assert primary.n == 30
    assert primary.chance < primary.low <= primary.value <= primary.high <= 1
    assert "queries=4" in primary.variant
    (path,) = bench.folder.glob("results/cells/*/evaluations/captioning-*/examples.parquet")
    assert pd.read_parquet(path).caption.str.contains("square").mean() > 0.9

    assert bench("run", *SMALL, "--methods", "captioning,clip", "--tasks", "captioning,retrieval") == 0
    assert "trained 0, evaluated 0" in bench.out
    assert bench("plan", *SMALL, "--methods", "captioning,clip") == 0
    assert "left out: captioning by clip: cannot caption" in bench.out
    assert bench("report") == 0
    assert "captioning" in bench.out

    assert bench("caption", "--dataset", "squares.yaml", "--count", "5", "--beams", "2") == 0, bench.err
    for word in ("true", "greedy", "2 beams", "square", "squares-captions.png"):
        assert word in bench.out
    with Image.open("squares-captions.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    assert bench("caption", "--dataset", "squares.yaml", "--method", "clip") == 2
    assert "method 'clip' cannot caption; those that can: captioning" in bench.err
    assert bench("caption", "--dataset", "squares.yaml", "--split", "tets") == 2
    assert "did you mean 'test'" in bench.err

    # The same captions as were evaluated: the cell comes back whole.
    stored = pd.read_parquet(path).set_index("id").caption
    assert bench("caption", "--dataset", "squares.yaml", "--count", "30", "--output", "all.png") == 0
    flat = "".join(bench.out.split())
    assert all(word in flat for word in set(stored.str.split().str[1]))

    records = [json.loads(line) for line in Path("squares.jsonl").read_text().splitlines()]
    records[0]["text"] = "something else"
    Path("squares.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert bench("caption", "--dataset", "squares.yaml") == 2
    assert "dataset 'squares' has changed since" in bench.err


def test_nothing_that_can_caption(bench: Bench) -> None:
    assert bench("caption", "--dataset", "squares.yaml") == 2
    assert "results: no trained cell of captioning; train one with bench run --methods captioning" in bench.err
    assert bench("plan", "--suite", "suite.yaml", "--methods", "clip,msd", "--tasks", "captioning") == 2
    assert "task captioning: none of the methods clip, msd can caption; those that can: captioning" in bench.err
    assert bench("plan", "--suite", "suite.yaml", "--methods", "clip,msd") == 0
    assert "left out: captioning by clip, msd: cannot caption" in bench.out


@pytest.mark.parametrize("starts", [True, False])
def test_a_tokenizer_without_a_start_is_refused(starts: bool, bench: Bench) -> None:
    save_hugging_face(bench.folder / "words", ends=starts)
    model = yaml.safe_load(Path("small.yaml").read_text())
    model["tokenizer"] = {"kind": "huggingface", "name": "words", "context_length": 16}
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 40}
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    model["text"] = {"kind": "transformers", "config": {"model_type": "gpt2"} | shape | ends, "pooling": "eos"}
    Path("gpt.yaml").write_text(yaml.safe_dump(model))
    flags = {"methods": ["captioning"], "model": "gpt.yaml"}
    plan = make_plan(load_run_config("suite.yaml", flags, [], []), bench.folder / "cache")
    refused = (
        "method 'captioning' needs start_token: the tokenizer of model 'gpt' does not begin texts with a start token"
    )
    assert plan.problems == ([] if starts else [refused])


def test_options_of_a_name_that_a_method_and_a_task_share(bench: Bench) -> None:
    both = ["--set", "captioning.queries=4", "--set", "captioning.beams=2"]
    assert bench("plan", "--suite", "suite.yaml", "--methods", "captioning", "--tasks", "captioning", *both) == 0
    assert bench("plan", "--suite", "suite.yaml", "--methods", "captioning", "--set", "captioning.quiries=4") == 2
    assert "did you mean 'queries'" in bench.err
