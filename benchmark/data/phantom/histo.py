"""Histology: a tissue section with glands, stained with haematoxylin and eosin."""

import math
from dataclasses import dataclass

import numpy as np

from benchmark.data.phantom.canvas import (
    Array,
    Layer,
    Random,
    View,
    dots,
    ellipse,
    field,
    grid,
    photograph,
    rgb,
    smooth,
    wobbly,
)
from benchmark.data.phantom.language import (
    NUMBERS,
    Picture,
    Question,
    choose,
    closed,
    modality,
    name,
    negation,
    opened,
    presence,
    sentence,
)

NAME = "histology image"
MULTI_LABEL = False
TERMS = {
    "normal": ("benign tissue",),
    "adenocarcinoma": ("malignant glands",),
    "lymphocytic infiltrate": ("aggregates of lymphocytes",),
    "necrosis": ("necrotic debris",),
    "mucin": ("mucinous material",),
}
FINDINGS = tuple(TERMS)
EXTENTS = ("focal", "moderate", "extensive")
GRADES = ("well", "moderately", "poorly")
PLACES = ("upper left", "upper right", "lower left", "lower right")

HAEMATOXYLIN = rgb(0.65, 0.70, 0.29)
EOSIN = rgb(0.07, 0.99, 0.25)
PIGMENT = rgb(0.06, 0.13, 0.28)  # brown of old blood: in dead tissue; elsewhere it is no sign of disease


@dataclass(frozen=True)
class Patient:
    """A patient with one disease.

    finding: its number in FINDINGS. severity: 0..2. stain: the strength of each dye in the patient's laboratory.
    """

    finding: int
    severity: int
    gland: float
    crowding: float
    stain: tuple[float, float]
    hue: tuple[float, float]


def patient(rng: Random) -> Patient:
    """Draw a patient."""
    return Patient(
        finding=rng.pick(range(len(FINDINGS))),
        severity=rng.pick((0, 1, 2)),
        gland=rng.between(0.105, 0.14),
        crowding=rng.between(0.6, 0.95),
        stain=(rng.between(0.6, 1.4), rng.between(0.55, 1.35)),
        hue=(rng.normal(0, 0.06), rng.normal(0, 0.06)),
    )


def picture(rng: Random, patient: Patient, size: int) -> Picture:
    """Draw a field of a patient's slide, which may miss the disease."""
    finding = 0 if rng.chance(0.06) else patient.finding
    severity = min(2, max(0, patient.severity + rng.pick((-1, 0, 0, 1))))
    places = rng.some((0, 1, 2, 3), rng.pick((1, 2), (0.65, 0.35)))
    return Picture(
        report=_report(rng, finding, severity, places),
        label=finding,
        questions=_questions(rng, finding, severity, places),
        image=_draw(rng, patient, finding, severity, places, size),
    )


def _report(rng: Random, finding: int, severity: int, places: list[int]) -> str:
    if finding == 0:
        main = rng.pick(
            (
                "normal glands",
                "histology showing normal tissue",
                "benign tissue",
                "normal glands in a loose stroma",
                "normal tissue with round and evenly spaced glands",
            )
        )
    elif FINDINGS[finding] == "adenocarcinoma":
        word = name(rng, FINDINGS[finding], TERMS)
        main = rng.pick(
            (
                word,
                f"{GRADES[severity]} differentiated {word}",
                f"histology showing {GRADES[severity]} differentiated {word}",
                f"{word} with crowded irregular lumina",
                f"{word} with large dark nuclei",
            )
        )
    else:
        word, extent, place = name(rng, FINDINGS[finding], TERMS), EXTENTS[severity], PLACES[places[0]]
        options = [f"histology showing {extent} {word}", f"{extent} {word} among the glands", f"{extent} {word}"]
        if len(places) == 1:
            options += [f"{word} in the {place} of the field", f"{extent} {word} in the {place}"]
        else:
            options += [f"two foci of {word}", f"{word} in the {place} and in the {PLACES[places[1]]}"]
        main = rng.pick(options)
    absent = [key for i, key in enumerate(FINDINGS) if i not in (0, finding)]
    return f"{sentence(main)} {negation(rng, absent, TERMS)}" if rng.chance(0.4) else sentence(main)


def _questions(rng: Random, finding: int, severity: int, places: list[int]) -> list[Question]:
    absent = [key for i, key in enumerate(FINDINGS) if i not in (0, finding)]
    pool = [
        modality(rng, NAME),
        closed("Is the tissue malignant?", FINDINGS[finding] == "adenocarcinoma", "abnormality"),
        opened("What abnormality is seen?", FINDINGS[finding] if finding else "none", "abnormality"),
    ]
    if FINDINGS[finding] == "adenocarcinoma":
        pool += [opened("How well differentiated is the tumour?", GRADES[severity], "severity")] * 2
    elif finding:
        pool.append(opened("How extensive is the finding?", EXTENTS[severity], "severity"))
        pool.append(opened("How many foci are there?", NUMBERS[len(places)], "count"))
        if len(places) == 1:
            pool.append(opened("Where in the field is the finding?", PLACES[places[0]], "location"))
    return choose(rng, [presence(rng, [FINDINGS[finding]] if finding else [], absent)], pool)


def _draw(rng: Random, patient: Patient, finding: int, severity: int, places: list[int], size: int) -> np.ndarray:
    view = View(size, rng.between(-0.3, 0.3), rng.between(0.9, 1.15))
    key = FINDINGS[finding]
    malignant = key == "adenocarcinoma"
    soft, fine = field(rng, 5, size), field(rng, 24, size)
    x, y = view.x, view.y
    turn = rng.between(0, np.pi)
    along = math.cos(turn) * x + math.sin(turn) * y
    fibre = np.sin(along * 75 + 4 * soft + 1.2 * fine)

    radius = (0.15, 0.18, 0.21)[severity] * (0.85 if len(places) == 2 else 1.0)
    foci = _foci(rng, places)
    patch = np.zeros_like(x)
    if key in ("necrosis", "mucin"):
        for focus in foci:
            shape = ellipse(*grid(size), tuple(focus), (radius, radius * rng.between(0.8, 1.2)), turn)
            patch = np.maximum(patch, smooth(shape + 0.02 * soft, 0.05))

    side = rng.pick((3, 4))
    at = (np.stack(np.meshgrid(np.arange(-1, side + 1), np.arange(-1, side + 1)), -1).reshape(-1, 2) + 0.5) / side
    at += rng.uniform(-0.22, 0.22, at.shape) / side
    at = at[rng.random(len(at)) < patient.crowding]
    shown = view.place(at)
    kept = (np.abs(shown - 0.5) < 0.65).all(1)
    if key in ("necrosis", "mucin", "lymphocytic infiltrate"):
        kept &= (np.hypot(*(shown[:, None] - foci).transpose(2, 0, 1)) > 0.9 * radius).all(1)
    at, shown = at[kept], shown[kept]
    glands = len(at)
    roughness = (0.12, 0.17, 0.22)[severity] if malignant else 0.05
    gland = patient.gland * (3.4 / side) * rng.uniform(0.8, 1.1, (glands, 1, 1))
    shape = wobbly(rng, glands, 20, roughness) * gland * rng.uniform((1, 0.75), (1, 1), (glands, 1, 2))
    hollow = rng.uniform(0.2, 0.45, (glands, 1, 1)) if malignant else rng.uniform(0.42, 0.6, (glands, 1, 1))
    cells, lumen = Layer(size), Layer(size)
    for outer, inner in zip(
        view.place(at[:, None] + shape),
        view.place(at[:, None] + wobbly(rng, glands, 14, 2 * roughness) * gland * hollow),
    ):
        cells.polygon(outer)
        lumen.polygon(inner)

    epithelium, white = cells.array(), lumen.array()

    dark = _nuclei(rng, size, rng.random((50, 2)), 0.017, 0.2, 0.35, (0.45, 0.75), turn + np.pi / 2)
    if key == "lymphocytic infiltrate":
        count = (32, 46, 62)[severity]
        spots = np.concatenate([focus + rng.normal(0, 0.42 * radius + 0.01, (count, 2)) for focus in foci])
        dark = np.maximum(dark, _nuclei(rng, size, spots, 0.0145, 0.1, 0.95, (0.85, 1.0)))
    dark = dark * (1 - epithelium)
    if malignant:
        lining = (at[:, None] + np.concatenate([0.88 * shape, 0.6 * shape[:, ::2]], 1)).reshape(-1, 2)
        lining += rng.normal(0, 0.008, lining.shape)
        nuclei = _nuclei(rng, size, view.place(lining), (0.017, 0.019, 0.021)[severity], 0.3, 0.7, (0.5, 1.0))
    else:
        nuclei = _nuclei(
            rng, size, view.place(at[:, None] + 0.82 * shape).reshape(-1, 2), 0.0165, 0.1, 0.75, (0.55, 0.8)
        )
    dark = np.maximum(dark, nuclei)

    stroma = 0.42 + 0.1 * fibre + 0.05 * soft
    eosin = stroma + epithelium * (0.36 + 0.04 * fine - stroma)
    blue = 0.06 + 0.02 * soft + epithelium * (0.2 + 0.03 * fine)
    eosin, blue = eosin * (1 - 0.96 * white), blue * (1 - 0.96 * white)
    blue = np.maximum(blue, 1.05 * dark)
    if key == "necrosis":
        count = (24, 36, 52)[severity]
        spots = np.concatenate([focus + rng.normal(0, 0.45 * radius, (count, 2)) for focus in foci])
        dust = _nuclei(rng, size, spots, 0.012, 0.3, 0.9, (0.6, 1.0))
        smudge = 0.2 + 0.1 * field(rng, 40, size)
        eosin, blue = eosin + patch * (smudge - eosin), blue + patch * (0.02 + 1.2 * dust - blue)
    if key == "mucin":
        strand = rng.between(0.1, 0.45) + 0.1 * np.sin(along * 40 + 5 * soft)
        eosin, blue = eosin + patch * (0.06 - eosin), blue + patch * (strand - blue)
    # No finding: smudges and pale areas in the places of findings, but without their texture.
    smudged = key not in ("necrosis", "mucin") and rng.chance(0.6)
    for focus in _foci(rng, rng.some((0, 1, 2, 3), rng.pick((1, 1, 2)))) if smudged else ():
        shape = ellipse(*grid(size), tuple(focus), (0.16, 0.16 * rng.between(0.8, 1.2)), turn)
        patch = np.maximum(patch, smooth(shape + 0.02 * soft, 0.05))
    if smudged:
        eosin, blue = eosin * (1 - 0.5 * patch), blue + patch * (0.18 - blue) * 0.7
    for focus in _foci(rng, rng.some((0, 1, 2, 3), rng.pick((1, 1, 2)))) if rng.chance(0.5) else ():
        shape = ellipse(*grid(size), tuple(focus), (0.15, 0.15 * rng.between(0.8, 1.2)), turn)
        pale = smooth(shape + 0.02 * soft, 0.05)
        eosin, blue = eosin * (1 - 0.6 * pale), blue * (1 - 0.3 * pale)
    blue *= (1 + 0.25 * field(rng, 3, size)) * (patient.stain[0] * rng.between(0.9, 1.1))
    eosin *= (1 + 0.25 * field(rng, 3, size)) * (patient.stain[1] * rng.between(0.9, 1.1))
    density = blue * (HAEMATOXYLIN + rgb(patient.hue[0], 0, patient.hue[0]))
    density += eosin * (EOSIN + rgb(0, 0, patient.hue[1]))
    if key != "mucin":
        density += patch * PIGMENT
    return photograph(rng, 0.97 * np.exp(-1.25 * density), rng.between(0.008, 0.025), 0.08)


def _foci(rng: Random, places: list[int]) -> list[np.ndarray]:
    return [np.array((0.28 + 0.44 * (p % 2), 0.28 + 0.44 * (p // 2))) + rng.uniform(-0.06, 0.06, 2) for p in places]


def _nuclei(
    rng: Random,
    size: int,
    centres: np.ndarray,
    radius: float,
    spread: float,
    roundness: float,
    darkness: tuple[float, float],
    angle: float | None = None,
) -> Array:
    """Draw a nucleus at each of ``centres`` [n, 2]; sizes vary by ``spread``, roundness is the ratio of the axes."""
    n = len(centres)
    radii = radius * np.exp(spread * np.clip(rng.normal(0, 1, (n, 1)), -1.6, 1.6)) * (1.0, roundness)
    angles = rng.random(n) * np.pi if angle is None else rng.normal(angle, 0.4, n)
    return dots(size, centres, radii, rng.uniform(*darkness, n), angles)
