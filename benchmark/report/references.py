"""The references of a report for BibTeX: what its methods, tasks, data and libraries say of themselves, no more."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata
from typing import TYPE_CHECKING, Any

from benchmark.common.errors import BenchError
from benchmark.common.machine import PACKAGES
from benchmark.report.results import natural

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.data.card import Card

HARNESS = "contrastive-benchmark"
_NAME = r"(?:(?:van|von|der|den|de|di|la|le) )*[A-ZÀ-Þ][\w’'-]*[a-zß-ÿ][\w’'-]*"
AUTHORS = re.compile(rf"({_NAME}) et al\.|({_NAME} and {_NAME})(?=,? \d{{4}})|(?<=\()({_NAME})(?= \d{{4}}\))")
ARXIV = re.compile(r"(?:https?://)?(?:arxiv\.org/abs/|arXiv[:\s]\s*)(\d{4}\.\d{4,5})(?:v\d+)?", re.IGNORECASE)
DOI = re.compile(r"(?:doi:\s*|https?://(?:dx\.)?doi\.org/)(10\.\d{4,}/[^\s,;)]*[^\s,;).])", re.IGNORECASE)
YEAR = re.compile(r"\b(?:19|20)\d\d\b")
PLACE = re.compile(r"\b(?:section|equation|table|figure|appendix)s? [\w.]+")


@dataclass
class Work:
    """A work that is referred to.

    fields: as BibTeX names them, as far as they are known. users: who refers to it. name: of a package or dataset.
    """

    fields: dict[str, str]
    users: list[str] = field(default_factory=list)
    name: str = ""

    @property
    def key(self) -> str:
        """A name or an identifier, else what is known of it in words: the same in every report."""
        if self.name:
            return self.name
        if self.fields.get("eprint"):
            return f"arXiv:{self.fields['eprint']}"
        if self.fields.get("doi"):
            return f"doi:{self.fields['doi']}"
        words = re.findall(r"[a-z0-9]+", self.fields.get("note", "").lower())
        surname = re.sub(r"[^a-z]", "", self.fields.get("author", "").lower().split(" and ")[0])
        return "-".join(filter(None, [surname + self.fields.get("year", ""), *sorted(words)]))


def references(rows: "pd.DataFrame", costs: "pd.DataFrame", escape: Callable[[str], str]) -> str:
    """Write the file references.bib: an entry for each work, by key. rows, costs: of all results. escape: for LaTeX.

    Authors, titles and years that no source states are left out. Its head names what has no reference.
    """
    stated, unknown = _stated(rows)
    works = merged([*_libraries(costs), *stated])
    lines = [
        "% Written by bench report --latex, from what methods, tasks, dataset cards and packages state. An entry has",
        "% the fields that are known, and no others: complete it by its arXiv number or DOI.",
    ]
    if unknown:
        # BibTeX would take an @ for the beginning of an entry, wherever it stands.
        listed = "; ".join(" ".join(name.split()) for name in unknown).replace("@", "(at)")
        lines.append(f"% Without a reference: {listed}.")
    return "\n".join([*lines, "", *(_entry(work, escape) for work in sorted(works, key=lambda work: work.key))])


def _stated(rows: "pd.DataFrame") -> tuple[list[Work], list[str]]:
    """List the works that methods, tasks and dataset cards refer to, and which of these have none or are not here."""
    from benchmark.data.card import load_card
    from benchmark.method import METHODS
    from benchmark.task import TASKS

    baseline = rows["role"].eq("baseline") if "role" in rows else rows["method"].isna()
    pretraining = [
        name for names in (rows["pretraining"].dropna() if "pretraining" in rows else []) for name in names.split(", ")
    ]
    users = [("method", name) for name in natural(rows.loc[~baseline, "method"].unique())]
    users += [("task", name) for name in natural(rows["task"].unique())]
    users += [("dataset", name) for name in natural({*rows["dataset"], *pretraining} - {""})]
    works, unknown = [], []
    for kind, name in users:
        try:
            if kind == "dataset":
                own = _of_card(load_card(name))
            else:
                own = list(cited((METHODS if kind == "method" else TASKS)[name].source))
        except BenchError:
            own = []
        works += [Work(work.fields, [f"{kind} {name}"], work.name) for work in own]
        unknown += [] if own else [f"{kind} {name}"]
    return works, unknown


def _of_card(card: "Card") -> list[Work]:
    """List the works that a dataset card cites, or its home page; of a set that is drawn in code, this harness."""
    if card.citation:
        return list(cited(card.citation))
    if card.home_page:
        return [Work({"title": card.title or card.name, "url": card.home_page}, name=f"dataset-{card.name}")]
    return [Work({}, name=HARNESS)] if card.access == "embedded" else []


def cited(text: str) -> Iterator[Work]:
    """Read the works that a text refers to, separated by semicolons or by their authors.

    >>> [work.fields for work in cited("CLIP (Radford et al. 2021, arXiv:2103.00020); XYPB/CLEFT")]
    [{'author': 'Radford and others', 'year': '2021', 'eprint': '2103.00020', 'note': 'CLIP'}, {'note': 'XYPB/CLEFT'}]
    """
    for fragment in filter(None, re.split(r";\s*", text.strip())):
        starts = list(AUTHORS.finditer(fragment))
        if not starts:
            yield from _work("", fragment, "")
        for number, authors in enumerate(starts):
            end = starts[number + 1].start() if number + 1 < len(starts) else len(fragment)
            rest, name = fragment[authors.end() : end], ""
            if fragment[: authors.start()].endswith("("):
                # What stands before the parenthesis is the name of the work.
                rest = rest.split(")")[0]
                before = fragment[: authors.start() - 1].split()
                name = before[-1] if before else ""
            several = authors[1] and f"{authors[1]} and others"
            yield from _work(several or authors[2] or authors[3], rest, name)


def _work(author: str, text: str, name: str) -> Iterator[Work]:
    """Make a work of its authors and the text after them, and one of each further identifier of the same kind."""
    arxiv, doi = ARXIV.findall(text), DOI.findall(text)
    rest = re.sub(r"\(\W*\)", "", PLACE.sub("", DOI.sub("", ARXIV.sub("", text))))
    year = YEAR.search(rest)
    if author and year:
        rest = rest[: year.start()] + rest[year.end() :]
    words = ", ".join(filter(None, (piece.strip(" .") for piece in rest.split(","))))
    fields = {
        "author": author,
        "year": year[0] if year and (author or arxiv or doi) else "",
        "eprint": arxiv[0] if arxiv else "",
        "doi": doi[0] if doi else "",
        "note": ", ".join(filter(None, [name, words])),
    }
    known = {name: value for name, value in fields.items() if value}
    if known:
        yield Work(known)
    yield from (Work({"eprint": each}) for each in arxiv[1:])
    yield from (Work({"doi": each}) for each in doi[1:])


def merged(works: Iterable[Work]) -> list[Work]:
    """Join the works of the same key, each field as the first states it.

    One of which nothing but authors and year is known is the one with an identifier that has both, if there is one.
    Packages that have an entry of their own are left out.
    """
    of_key: dict[str, Work] = {}
    bare = []
    for work in works:
        first_word = work.fields.get("note", "").split(" ")[0]
        if set(work.fields) == {"note"} and any(f"{package}_".startswith(f"{first_word}_") for package in PACKAGES):
            continue
        if work.fields and set(work.fields) <= {"author", "year"}:
            bare.append(work)
            continue
        _join(of_key.setdefault(work.key, Work({}, name=work.name)), work)
    for work in bare:
        same = [
            each
            for each in of_key.values()
            if {"eprint", "doi"} & set(each.fields) and work.fields.items() <= each.fields.items()
        ]
        _join(same[0] if len(same) == 1 else of_key.setdefault(work.key, Work({})), work)
    return list(of_key.values())


def _join(work: Work, other: Work) -> None:
    work.fields = {**other.fields, **work.fields}
    work.users += [user for user in other.users if user not in work.users]


def _libraries(costs: "pd.DataFrame") -> list[Work]:
    """List the libraries that trainings recorded, with their versions, and this harness."""
    machines = [each for each in costs.get("machine", ()) if isinstance(each, dict)] if len(costs) else []
    versions = {package: [each[package] for each in machines if package in each] for package in PACKAGES}
    versions[HARNESS] = list(costs["version"].dropna()) if "version" in costs else []
    return [_library(package, versions[package]) for package in versions if versions[package] or package == HARNESS]


def _library(package: str, versions: Sequence[str]) -> Work:
    work = Work({"title": package}, [] if package == HARNESS else ["library"], package)
    if versions:
        work.fields["note"] = f"Version {', '.join(sorted(set(versions), key=_numbers))}"
    try:
        about: Any = metadata(package)
    except PackageNotFoundError:
        return work
    for summary in about.get_all("Summary") or []:
        work.fields["title"] = f"{package}: {summary.rstrip('.')}"
    urls = dict(each.split(", ", 1) for each in about.get_all("Project-URL") or [])
    homes = [url for name, url in urls.items() if name.lower() == "homepage"] + (about.get_all("Home-page") or [])
    return Work(work.fields | ({"url": homes[0]} if homes else {}), work.users, package)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _entry(work: Work, escape: Callable[[str], str]) -> str:
    """Write an entry. Styles that know neither eprint nor doi print howpublished."""
    fields = dict(work.fields)
    identifiers = [f"arXiv:{fields['eprint']}"] if "eprint" in fields else []
    identifiers += [f"doi:{fields['doi']}"] if "doi" in fields else []
    texts: dict[str, str] = {
        name: escape(fields[name]) for name in ("title", "author", "year", "note") if name in fields
    }
    if "title" in texts:
        # Double braces keep capitals.
        texts["title"] = f"{{{texts['title']}}}"
    if "author" not in texts:
        # What it is sorted by.
        texts["key"] = escape(work.name or fields.get("note", work.key))
    if identifiers:
        texts["howpublished"] = escape(", ".join(identifiers))
    if "eprint" in fields:
        texts |= {"eprint": fields["eprint"], "archiveprefix": "arXiv"}
    # Read as they are, but for what would end the field.
    texts |= {name: re.sub(r"[{}\\\s]", _encoded, fields[name]) for name in ("doi", "url") if name in fields}
    texts |= {"annote": escape("Used by: " + ", ".join(work.users) + ".")} if work.users else {}
    key = re.sub(r"[^\w.:/-]+", "-", work.key, flags=re.ASCII)
    return f"@misc{{{key},\n" + "".join(f"  {name} = {{{text}}},\n" for name, text in texts.items()) + "}\n"


def _encoded(sign: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in sign[0].encode())
