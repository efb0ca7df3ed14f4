"""Draw one picture of all domains for the README: ``python -m benchmark.data.phantom.sheet docs/contact_sheet.png``."""

import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmark.data.phantom import DOMAINS, Sample, generate

GAP, LINES = 6, 3
INK, PAPER = (40, 40, 40), (255, 255, 255)


def contact_sheet(path: Path | str, per_modality: int = 8, size: int = 128, seed: int = 0) -> None:
    """Draw a PNG with a row of ``per_modality`` samples of ``size`` pixels for every domain, each above its report."""
    points = max(8, size // 12)
    font = ImageFont.load_default(points)
    line = round(1.3 * points)
    step = size + GAP, size + LINES * line + 2 * GAP
    margin = line + 3 * GAP
    sheet = Image.new("RGB", (margin + per_modality * step[0], GAP + len(DOMAINS) * step[1]), PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, (modality, domain) in enumerate(DOMAINS.items()):
        top = GAP + row * step[1]
        title = Image.new("RGB", (size, margin - GAP), PAPER)
        ImageDraw.Draw(title).text((size / 2, 0), domain.NAME.capitalize(), INK, font, anchor="ma")
        sheet.paste(title.rotate(90, expand=True), (GAP, top))
        for column, sample in enumerate(_various(modality, per_modality, size, seed)):
            left = margin + column * step[0]
            sheet.paste(Image.fromarray(sample.image), (left, top))
            report = textwrap.wrap(sample.text[0], round(1.85 * size / points), max_lines=LINES, placeholder=" ...")
            pen.multiline_text((left, top + size + GAP // 2), "\n".join(report), INK, font, spacing=line - points)
    sheet.save(path, "PNG", optimize=True)


def _various(modality: str, count: int, size: int, seed: int) -> list[Sample]:
    """The first images of patients, one for every finding in turn; images with several findings come last."""

    def draw(number: int, size: int) -> Sample:
        return generate(modality, "sheet", range(number, number + 1), seed, size)[0]

    patients: dict[tuple[int, ...], list[int]] = {}
    for number in range(15 * count):
        label = draw(number, 32).label
        kind = (sum(label), *(-flag for flag in label)) if isinstance(label, list) else (label,)
        patients.setdefault(kind, []).append(number)
    turns = [patients[kind][turn] for turn in range(count) for kind in sorted(patients) if turn < len(patients[kind])]
    return [draw(number, size) for number in turns[:count]]


if __name__ == "__main__":
    contact_sheet(sys.argv[1])
