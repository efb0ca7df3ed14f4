"""Read the pages of the documentation: their code blocks, commands, links and headings."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
    *sorted((ROOT / "results" / "reference").rglob("README.md")),
]


def name_of(page: Path) -> str:
    """Name a page by its path in the repository."""
    return page.relative_to(ROOT).as_posix()


def fenced(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def block(name: str, language: str, containing: str) -> str:
    """The one code block of docs/NAME that contains a text."""
    (found,) = [code for code in fenced(ROOT / "docs" / name, language) if containing in code]
    return found


def prose(page: Path) -> str:
    """A page without its fenced and indented code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def links(page: Path) -> list[str]:
    """The targets of a page's links and images that lie in this repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[list[str]]:
    """The arguments of every ``bench`` command on a page, in code blocks and in code spans."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    lines = re.findall(r"^ {4}(?:\.venv/bin/)?(bench .+)$", text, re.MULTILINE)
    spans = re.findall(r"`(bench [^`\n]+)`", text)
    return [shlex.split(line, comments=True)[1:] for line in [*lines, *spans]]


def files(page: Path) -> list[str]:
    """The files and folders of this repository that a page names as code."""
    tops = "benchmark|methods|tasks|configs|tests|docs|examples"
    return re.findall(rf"`((?:{tops})/[\w/.-]*)`", page.read_text(encoding="utf-8"))
