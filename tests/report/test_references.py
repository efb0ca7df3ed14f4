"""References: what is read from the texts of methods, tasks and cards, and nothing that they do not say."""

from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import yaml

from benchmark.config.yaml_files import find_config
from benchmark.data.card import card_names, load_card
from benchmark.method import METHODS
from benchmark.report.latex import escape_latex
from benchmark.report.references import cited, references
from benchmark.task import TASKS
from tests.report.latex_reading import entries


@pytest.mark.parametrize(
    ("text", "works"),
    [
        ("", []),
        (
            "Radford et al. 2021, arXiv 2103.00020; open_clip",
            [{"author": "Radford and others", "year": "2021", "eprint": "2103.00020"}, {"note": "open_clip"}],
        ),
        (
            "MSD, arXiv 2512.02438; ALBEF, arXiv 2107.07651",
            [{"eprint": "2512.02438", "note": "MSD"}, {"eprint": "2107.07651", "note": "ALBEF"}],
        ),
        (
            "shots: CLIP (Radford et al. 2021, arXiv:2103.00020)",
            [{"author": "Radford and others", "year": "2021", "eprint": "2103.00020", "note": "CLIP"}],
        ),
        (
            "BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004), as in COCO's evaluation",
            [
                {"author": "Papineni and others", "year": "2002", "note": "BLEU"},
                {"author": "Lin", "year": "2004", "note": "ROUGE-L"},
            ],
        ),
        (
            "Alain and Bengio 2016, https://arxiv.org/abs/1610.01644; Radford et al. 2021, section 3.2",
            [
                {"author": "Alain and Bengio", "year": "2016", "eprint": "1610.01644"},
                {"author": "Radford and others", "year": "2021"},
            ],
        ),
        (
            "Yang et al., MedMNIST v2, Scientific Data 2023, doi:10.1038/s41597-022-01721-8",
            [
                {
                    "author": "Yang and others",
                    "year": "2023",
                    "doi": "10.1038/s41597-022-01721-8",
                    "note": "MedMNIST v2, Scientific Data",
                }
            ],
        ),
        (
            "Borkowski et al., Histopathological Image Dataset (LC25000), arXiv:1912.12142",
            [
                {
                    "author": "Borkowski and others",
                    "eprint": "1912.12142",
                    "note": "Histopathological Image Dataset (LC25000)",
                }
            ],
        ),
        (
            "van den Berg et al. 2020 (doi:10.1000/a.b).",
            [{"author": "van den Berg and others", "year": "2020", "doi": "10.1000/a.b"}],
        ),
        ("A challenge, ICCV 2021", [{"note": "A challenge, ICCV 2021"}]),
        ("arXiv:2101.00001v2, arXiv:2101.00002", [{"eprint": "2101.00001"}, {"eprint": "2101.00002"}]),
    ],
)
def test_a_text_is_read_for_what_it_says(text: str, works: list[dict[str, str]]) -> None:
    assert [work.fields for work in cited(text)] == works


def test_no_field_says_more_than_its_source() -> None:
    texts = [METHODS[name].source for name in METHODS.names()] + [TASKS[name].source for name in TASKS.names()]
    texts += [load_card(name).citation for name in card_names()]
    count = 0
    for text in texts:
        for work in cited(text):
            count += 1
            for field, value in work.fields.items():
                for word in value.removesuffix(" and others").split(", "):
                    assert word in text, (field, word, text)
    assert count > 80


def used(method: str, task: str, dataset: str, **others: str) -> pd.DataFrame:
    return pd.DataFrame([{"method": method, "task": task, "dataset": dataset, **others}])


def test_entries_name_who_uses_them_and_their_versions() -> None:
    rows = pd.concat(
        [
            used("clip", "zero_shot", "pathmnist", pretraining="mimic-cxr, phantom-cxr"),
            used("msd", "linear_probe", "my@set", pretraining="mimic-cxr, phantom-cxr"),
            used("raw pixels", "linear_probe", "pathmnist", role="baseline"),
            used("hf:model", "linear_probe", "pathmnist", role="model"),
        ],
        ignore_index=True,
    )
    machines = [{"torch": "2.6.0", "timm": "1.0", "cores": 2}, {"torch": "2.10.0", "timm": "1.0"}]
    costs = pd.DataFrame({"machine": machines, "version": "0.1.0"})
    text = references(rows, costs, escape_latex)
    assert "% Without a reference: method hf:model; dataset my(at)set.\n" in text
    found = entries(text)
    assert list(found) == sorted(found)
    clip = found["arXiv:2103.00020"]
    assert clip["author"] == "Radford and others"
    assert (clip["eprint"], clip["archiveprefix"], clip["year"]) == ("2103.00020", "arXiv", "2021")
    # The probe cites it without its number.
    assert clip["annote"] == r"Used by: method clip, task zero\_shot, task linear\_probe."
    assert "title" not in clip
    assert found["doi:10.1038/s41597-022-01721-8"]["annote"] == "Used by: dataset pathmnist."
    assert found["doi:10.1038/s41597-019-0322-0"]["annote"] == "Used by: dataset mimic-cxr."
    assert found["arXiv:1901.07042"]["key"] == "MIMIC-CXR-JPG"
    assert found["torch"]["note"] == "Version 2.6.0, 2.10.0"
    assert found["torch"]["url"] == "https://pytorch.org"
    assert found["timm"]["note"] == "Version 1.0"
    assert "numpy" not in found
    # Drawn in code.
    assert found["contrastive-benchmark"]["annote"] == "Used by: dataset phantom-cxr."
    assert found["contrastive-benchmark"]["note"] == "Version 0.1.0"
    assert version("contrastive-benchmark")
    for fields in found.values():
        assert set(fields) <= {
            *("author", "year", "title", "note", "key", "howpublished"),
            *("eprint", "archiveprefix", "doi", "url", "annote"),
        }


def test_every_method_task_and_card_has_an_entry() -> None:
    names = [("clip", "vqa", name) for name in card_names()]
    names += [(name, "vqa", "phantom-cxr") for name in METHODS.names()]
    names += [("clip", name, "phantom-cxr") for name in TASKS.names()]
    rows = pd.DataFrame(names, columns=["method", "task", "dataset"])
    text = references(rows, pd.DataFrame(), escape_latex)
    assert "Without a reference" not in text
    found = entries(text)
    users = " ".join(fields.get("annote", "") for fields in found.values())
    for method, task, dataset in names:
        for name in (f"method {method}", f"task {task}", f"dataset {dataset}"):
            assert escape_latex(name) in users


def test_hostile_texts_stay_in_their_fields(tmp_path: Path) -> None:
    card = yaml.safe_load(find_config("dataset", "shapes").read_text())
    card |= {"name": "odd", "title": 'a } @misc{b, "c" % # \\ {', "home_page": "https://x.org/{a}%20#\\ b"}
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(card))
    rows = used("@misc{x,", "} \\end{document}", str(tmp_path / "odd.yaml"))
    text = references(rows, pd.DataFrame(), escape_latex)
    found = entries(text)
    (odd,) = [fields for key, fields in found.items() if key == "dataset-odd"]
    assert odd["url"] == "https://x.org/%7Ba%7D%20#%5C%20b"
    assert (
        odd["title"] == r"{a \textbraceright{} @misc\textbraceleft{}b, ''c'' \% \# \textbackslash{} \textbraceleft{}}"
    )
    assert "(at)misc{x," in text.splitlines()[2]
