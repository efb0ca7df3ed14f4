"""What the pages about methods and tasks must say of each, read from the registered classes."""

import sys
from dataclasses import MISSING, fields
from typing import Any

from benchmark.data.card import card_names, load_card
from benchmark.method import METHODS, Method
from benchmark.models.published import load_published, published_names
from benchmark.task import Task


def method_facts(name: str) -> list[str]:
    """The lines of a method's section that follow from its class."""
    cls = METHODS[name]
    needs = ", ".join(f"`{need}`" for need in sorted(cls.needs_of(cls.Config())))
    return [
        f"{cls.summary[0].upper()}{cls.summary[1:]}.",
        f"- Source: {cls.source}.",
        f"- Trains: {cls.trains}.",
        f"- Cost beyond clip: {cls.extra}.",
        f"- Inferred: {cls.inferred or 'nothing'}.",
        f"- Needs: {needs or 'pairs only'}.",
        f"- Accumulation: {', '.join(f'`{mode}`' for mode in cls.accumulation)}.",
    ]


def task_facts(cls: type[Task]) -> list[str]:
    """The lines of a task's section that follow from its class."""
    able = ", ".join(f"`{ability}`" for ability in sorted(cls.abilities))
    return [
        f"- Main number: `{cls.primary}`.",
        f"- Needs: {', '.join(f'`{need}`' for need in sorted(cls.needs))}.",
        f"- Splits that must not be empty: {', '.join(f'`{split}`' for split in cls.splits)}.",
        *([f"- Only for methods with the ability {able}."] if able else []),
    ]


def options(cls: type[Method] | type[Task]) -> dict[str, str]:
    """Each option of a class with its default as YAML shows it."""
    defaults = {
        field.name: field.default_factory() if field.default_factory is not MISSING else field.default
        for field in fields(cls.Config)
    }
    return {name: shown(value) for name, value in defaults.items()}


def shown(value: Any) -> str:
    """A default as a page writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        if len(value) > 6:
            return f"{len(value)} values, {value[0]:g} to {value[-1]:g}"
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


PUBLISHED = """\
# Published data

The harness has cards for {count} published datasets and parts of datasets. A card says what the data are, where to get
them, how they lie on disk, and which split is official or by which seeded rule it is drawn. It also says what could not
be confirmed. No data come with the harness. `bench data get` downloads the open sets; for the others it prints the
steps.

Put the datasets below one folder and set `BENCH_DATA` to it:

    export BENCH_DATA=/data
    bench data list                               # which datasets are there, which are missing
    bench data how ham10000                       # the steps, and the files that are expected on disk
    bench data get ham10000 pathmnist             # download them to where the cards expect them; resumes if interrupted
    bench data get --suite medmnist               # all datasets of a suite
    bench data verify ham10000                    # compare the files with the card
    bench data prepare pmc-oa --size 224          # decode the images ahead of a run; resumes if interrupted
    bench run --suite roy2024                     # also cxr, cleft, medmnist: runs with the datasets that are there
    bench run --suite roy2024 --strict            # fail if one is missing

`bench data get` shows size and licence, asks once whether you accept the licence (in scripts: `--accept-licence`), and
refuses before the download if the disk has no room. A file that is not whole ends in `.part`; the same command goes on
there after Ctrl-C, a cut connection or a stalled host. Size and checksum are compared where the host publishes them,
archives are unpacked whole or not at all, and nothing that is there already is downloaded or overwritten.

DICOM and Excel files need extra packages: `pip install 'contrastive-benchmark[published]'`.

This page is generated from the cards in [configs/datasets](../configs/datasets). Sizes, licences and access may change:
check the home page before you use a dataset.

| dataset | access | size | provides |
|---|---|---|---|
{table}
"""


def published() -> str:
    """The page on published data, as the cards say it."""
    cards = [card for card in map(load_card, card_names()) if card.access != "embedded"]
    table, sections = [], []
    for card in cards:
        provides = ", ".join(sorted(card.provides))
        link = f"[{card.name}](#{card.name})"
        table.append(
            f"| {link}: {card.title} | {card.access or 'not stated'} | {card.size or 'not stated'} | {provides} |"
        )
        lines = [
            f"\n## {card.name}\n",
            f"{card.title}.\n",
            f"- Access: {card.access or 'not stated'}. Licence: {card.licence}.",
        ]
        if card.rows:
            lines.append(f"- Expected images: {', '.join(f'{split} {count:,}' for split, count in card.rows.items())}.")
        if card.about_rows:
            about = ", ".join(f"{split} {count:,}" for split, count in card.about_rows.items())
            lines.append(f"- Images, roughly: {about}.")
        lines += [f"- Home page: <{card.home_page}>", f"- Citation: {card.citation}.\n"]
        lines += [f"`bench data get {card.name}` does this:\n"] if card.get else []
        lines += [f"{number}. {step}" for number, step in enumerate(card.how, 1)]
        if card.notes:
            lines += ["", *(f"> {note}" + "\n>" * (note != card.notes[-1]) for note in card.notes)]
        sections.append("\n".join(lines))
    return PUBLISHED.format(count=len(cards), table="\n".join(table)) + "\n".join(sections) + "\n"


MODELS = """\
# Published models

`bench eval` evaluates {count} published models by the names of their cards, next to yours in the same report:

    bench list models                              # with licence, and whether they are gated
    bench eval --model biomedclip --datasets phantom-cxr
    bench eval --model biomedclip,medsiglip,hf:my-model --datasets phantom-cxr
    bench eval --model biomedclip --own-prompts --datasets phantom-cxr

Several are evaluated one after another. One that fails is named at the end, the rows of the others are kept, and the
exit status is 1. Zero-shot classification uses the prompts of the datasets, so that all models are asked the same;
`--own-prompts` uses the templates of a model's authors, in datasets whose prompts are templates without negation, and
adds lines of their own to the tables.

Get the files of a model once, with the commands below; where the hub can be reached, `bench eval` gets them itself.
After that it needs no network. Files are looked for in `$BENCH_MODELS/NAME`, further repositories in
`$BENCH_MODELS/REPOSITORY` (without the owner), and then in the hub's cache. For a gated model, accept its terms on the
hub and log in (`hf auth login`) first. Read the licence: several allow research only.

Every tensor of a file must find its place, and every one of the model its tensor; otherwise the file is refused. Files
are read without running code in them. The layouts are tested with random weights against the formulas of the models'
own code; the published weights themselves are not part of these tests.

Runs prepare images as squares of one size. Models that take other images are refused before anything is encoded: those
of SigLIP 2 that are named naflex, image processors without a crop, architectures of oblong images.

A card of your own has the same keys: copy one from [configs/models/published](../configs/models/published) and pass its
path to `--model`. This page is generated from the cards.

| model | licence | gated | image tower and text tower |
|---|---|---|---|
{table}
"""


def published_models() -> str:
    """The page on published models, as their cards say it."""
    cards = [load_published(name) for name in published_names()]
    table, sections = [], []
    for card in cards:
        gated = {True: "yes", False: "no", None: "not established"}[card.gated]
        table.append(f"| [{card.name}](#{card.name}) | {card.licence} | {gated} | {card.architecture} |")
        lines = [
            f"\n## {card.name}\n",
            f"{card.title}.\n",
            f"- Paper: {card.paper}.",
            f"- Licence: {card.licence}. Gated: {gated}.",
            f"- Tokenizer: {card.tokenizer}.",
            f"- Images: {card.preprocessing}.",
            f"- Prompts of its authors: {'; '.join(f'`{prompt}`' for prompt in card.prompts) or 'no template'}.",
            "",
            *(f"    {command}" for command in card.commands),
            f"    bench eval --model {card.name}\n",
            *(f"> {note}" + "\n>" * (note != card.notes[-1]) for note in card.notes),
        ]
        sections.append("\n".join(lines))
    return MODELS.format(count=len(cards), table="\n".join(table)) + "\n".join(sections) + "\n"


PAGES = {"published-data": published, "published-models": published_models}
"""What writes each page of docs/ that follows from cards alone."""

if __name__ == "__main__":
    sys.stdout.write(PAGES[sys.argv[1]]())
