"""What README and docs show is there: links, files, commands, code, and facts about methods, tasks and cards."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from benchmark.cli.main import app
from benchmark.data.card import load_card
from benchmark.method import METHODS
from benchmark.task import TASKS
from tests.docs import facts
from tests.docs.pages import PAGES, ROOT, anchors, commands, fenced, files, links, name_of

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)
COMMANDS = sorted({tuple(arguments) for page in PAGES for arguments in commands(page)})
OWN = {"hinge", "neighbours", "decoupled"}
"""Methods that the pages themselves define."""
WORKED = {
    "README.md": ["hinge"],
    "docs/contributing.md": ["Neighbours", "NearestMean", "SidecarSource", "seeds_per_line"],
}
"""The Python blocks of each page that a test runs, by a name in them."""


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


@each_page
def test_files_that_a_page_names_are_there(page: Path) -> None:
    missing = [name for name in files(page) if not (ROOT / name).exists()]
    assert not missing


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 125


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_can_be_typed(arguments: tuple[str, ...]) -> None:
    """Options exist and take what is given; nothing is run."""
    command, rest = typer.main.get_command(app), [argument for argument in arguments if argument != "--help"]
    context = command.make_context("bench", rest[:1], resilient_parsing=True)
    while hasattr(command, "commands") and (rest or "--help" not in arguments):
        assert rest, "a group needs a subcommand"
        command = command.get_command(context, rest.pop(0))
        assert command is not None, f"unknown command in {arguments}"
    if rest:  # a command's name alone, as prose has it, may lack what the command requires
        values = command.make_context(arguments[0], rest).params
        named = {name.strip() for name in (values.get("methods") or "").split(",") if name.strip()}
        assert named <= {"all", *METHODS.names(), *OWN}


def test_a_wrong_option_is_seen() -> None:
    with pytest.raises(Exception, match=r"--metods|No such option"):
        test_commands_can_be_typed(("run", "--metods", "clip"))


def python_blocks() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for code in fenced(page, "python"):
            yield name_of(page), code


def test_python_blocks_are_worked_examples() -> None:
    for page, code in python_blocks():
        compile(code, page, "exec")
        if page == "docs/python-api.md":
            continue  # test_examples.py runs all of this page
        names = re.findall(r"^(?:class|def) (\w+)", code, re.MULTILINE)
        worked = {name.lower() for name in WORKED.get(page, [])}
        assert {name.lower() for name in names} & worked, f"{page}: no test runs the block with {names}"


@each_page
def test_cards_are_valid(page: Path, tmp_path: Path) -> None:
    for code in fenced(page, "yaml"):
        if "kind: sidecar" in code:
            continue  # test_contributing.py reads this one
        (tmp_path / "card.yaml").write_text(code)
        assert load_card(tmp_path / "card.yaml").provides


def sections(page: str) -> dict[str, list[str]]:
    parts = re.split(r"^## `(\w+)`$", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: text.splitlines() for name, text in zip(parts[1::2], parts[2::2])}


def defaults(lines: list[str]) -> dict[str, str]:
    rows = [re.split(r" ?\| ?", line.strip("| ")) for line in lines if line.startswith("| `")]
    return {name.strip("`"): default for name, default, _ in rows}


def test_methods_are_as_registered() -> None:
    documented = sections("methods.md")
    assert sorted(documented) == METHODS.names()
    for name, lines in documented.items():
        assert [line for line in facts.method_facts(name) if line not in lines] == [], name
        assert defaults(lines) == facts.options(METHODS[name])


def test_tasks_are_as_registered() -> None:
    documented = sections("tasks.md")
    assert sorted(documented) == TASKS.names()
    for name, lines in documented.items():
        assert [line for line in facts.task_facts(TASKS[name]) if line not in lines] == [], name
        assert defaults(lines) == facts.options(TASKS[name])


@pytest.mark.parametrize("name", facts.PAGES)
def test_pages_are_as_the_cards_say(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert page == facts.PAGES[name](), f"run: python -m tests.docs.facts {name} > docs/{name}.md"
