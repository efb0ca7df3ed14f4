"""Mammograms. The chest wall is on the left of the image for a left breast, on the right for a right breast."""

from dataclasses import dataclass

import numpy as np

from benchmark.data.phantom.canvas import Array, Layer, Random, View, dots, ellipse, field, inside, photograph, smooth
from benchmark.data.phantom.language import (
    NUMBERS,
    Picture,
    Question,
    article,
    choose,
    closed,
    modality,
    name,
    negation,
    opened,
    presence,
    sentence,
)

NAME = "mammogram"
MULTI_LABEL = False
TERMS = {
    "normal": ("no suspicious finding",),
    "circumscribed mass": ("well-defined mass",),
    "spiculated mass": ("stellate mass",),
    "microcalcifications": ("clustered calcifications",),
    "oil cyst": ("lucent cyst",),
}
FINDINGS = tuple(TERMS)
SIZES = ("small", "medium-sized", "large")
DENSITIES = ("fatty", "mixed", "dense")
PLACES = ("upper", "central", "lower")


@dataclass(frozen=True)
class Patient:
    """The breast of a patient.

    finding: its number in FINDINGS. place: 0 upper, 1 central, 2 lower. severity: 0..2. density: 0..2.
    """

    finding: int
    place: int
    severity: int
    count: int
    left: bool
    density: int
    length: float
    height: float
    droop: float
    tissue: int


def patient(rng: Random) -> Patient:
    """Draw a patient."""
    return Patient(
        finding=rng.pick(range(len(FINDINGS))),
        place=rng.pick((0, 1, 2)),
        severity=rng.pick((0, 1, 2)),
        count=rng.pick((1, 2), (0.7, 0.3)),
        left=rng.chance(0.5),
        density=rng.pick((0, 1, 2)),
        length=rng.between(0.58, 0.84),
        height=rng.between(0.39, 0.46),
        droop=rng.between(-0.02, 0.06),
        tissue=int(rng.integers(2**31)),
    )


def picture(rng: Random, patient: Patient, size: int) -> Picture:
    """Draw a view of the patient's breast, now or earlier, when there was no finding yet."""
    finding = 0 if rng.chance(0.06) else patient.finding
    severity = min(2, max(0, patient.severity + rng.pick((-1, 0, 0, 1))))
    oblique = rng.chance(0.5)
    return Picture(
        report=_report(rng, patient, finding, severity, oblique),
        label=finding,
        questions=_questions(rng, patient, finding, severity, oblique),
        image=_draw(rng, patient, finding, severity, oblique, size),
    )


def _report(rng: Random, patient: Patient, finding: int, severity: int, oblique: bool) -> str:
    side = "left" if patient.left else "right"
    view = "oblique" if oblique else "craniocaudal"
    density = DENSITIES[patient.density]
    start = rng.pick(
        ("", f"{side} {view} mammogram", f"{density} breast tissue", f"{side} breast of {density} density")
    )
    if finding == 0:
        main = rng.pick(
            ("normal mammogram", "mammogram showing a normal breast", "no suspicious finding", "normal breast")
        )
    else:
        word, place = name(rng, FINDINGS[finding], TERMS), f"in the {PLACES[patient.place]} {side} breast"
        plural = patient.count > 1 or finding == 3
        if patient.count > 1:
            word = (
                f"{NUMBERS[patient.count]} clusters of {word}" if finding == 3 else f"{NUMBERS[patient.count]} {word}"
            )
            word = word.replace("mass", "masses").replace("cyst", "cysts")
        noun = rng.pick((word, f"{SIZES[severity]} {word}")) if patient.count == 1 else word
        main = rng.pick(
            (
                f"{noun} {place}",
                f"there {'are' if plural else 'is'} {noun if plural else article(noun)} {place}",
                f"mammogram showing {noun if plural else article(noun)} {place}",
                f"{noun} in the {side} breast",
            )
        )
    end = (
        negation(rng, [key for i, key in enumerate(FINDINGS) if i not in (0, finding)], TERMS)
        if rng.chance(0.35)
        else ""
    )
    return " ".join(filter(None, (start and sentence(start), sentence(main), end)))


def _questions(rng: Random, patient: Patient, finding: int, severity: int, oblique: bool) -> list[Question]:
    side = "left" if patient.left else "right"
    absent = [key for i, key in enumerate(FINDINGS) if i not in (0, finding)]
    pool = [
        modality(rng, NAME),
        opened("Which breast is shown?", side, "side"),
        opened("How dense is the breast?", DENSITIES[patient.density], "attribute"),
        closed("Is the pectoral muscle visible?", oblique, "attribute"),
        opened("What abnormality is seen?", FINDINGS[finding] if finding else "none", "abnormality"),
    ]
    if finding:
        pool += [
            opened("In which part of the breast is the finding?", PLACES[patient.place], "location"),
            opened("How large is the finding?", SIZES[severity], "severity"),
            opened("How many findings are there?", NUMBERS[patient.count], "count"),
        ]
    return choose(rng, [presence(rng, [FINDINGS[finding]] if finding else [], absent)], pool)


def _draw(rng: Random, patient: Patient, finding: int, severity: int, oblique: bool, size: int) -> np.ndarray:
    view = View(
        size, rng.normal(0, 0.05), rng.between(0.92, 1.08), (0.0, rng.between(-0.04, 0.04)), mirror=not patient.left
    )
    x, y, pixel = view.x, view.y, 1.2 / size
    anatomy = Random(patient.tissue)
    lobes, strands, grain = field(anatomy, 7, size), field(anatomy, 18, size), field(rng, 30, size)

    middle = 0.5 + patient.droop * (0.4 + oblique)
    reach = patient.length * rng.between(0.95, 1.05)
    dx, dy = x * (1 / reach), (y - middle - (0.12 * oblique) * (0.5 - x)) * (1 / (patient.height + 0.03 * oblique))
    bulge = np.where(dy < 0, np.float32(1.0), np.float32(1.12))
    depth = 1 - np.sqrt(np.maximum(dx, 0) ** 2 + (dy * bulge) ** 2)
    skin = -depth * (0.5 * (reach + patient.height))
    breast = inside(skin, 0.015)
    image = breast * (0.16 + 0.1 * np.clip(depth * 3, 0, 1) + 0.02 * strands)
    image += 0.16 * inside(np.abs(skin + 0.01) - 0.006, 0.012)
    extent = (0.62, 0.8, 0.98)[patient.density]
    nipple = reach * 0.92
    fan = np.sqrt(((x - nipple * 0.5) * (1 / (nipple * 0.52))) ** 2 + (dy * 1.25) ** 2) / extent
    gland = smooth(fan - 0.9 + 0.25 * lobes + 0.16 * strands, 0.5) * np.clip(depth * 7, 0, 1)
    bright = (0.1, 0.17, 0.24)[patient.density]
    image += gland * (bright + 0.025 * strands + 0.035 * lobes)
    duct = np.sin(np.arctan2(y - middle, nipple * 1.08 - x) * 22 + 2.5 * lobes + 1.5 * strands)
    image += breast * 0.02 * np.clip(depth * 4, 0, 1) * duct * (0.5 + gland)
    image += 0.25 * smooth(ellipse(x, y, (reach - 0.01, middle + 0.06 * oblique), (0.022, 0.032)), 0.02)
    if oblique:
        muscle = inside(x * 1.0 + (y - 0.02) * rng.between(0.55, 0.75) - rng.between(0.3, 0.38), 0.03)
        image += muscle * (0.6 + 0.03 * strands - image) * breast
    image += breast * 0.012 * grain

    for number in range(patient.count if finding else 0):
        place = patient.place if number == 0 else (patient.place + 1) % 3
        at = rng.between(0.24, 0.62) * reach
        centre = (at, middle + (place - 1) * patient.height * rng.between(0.38, 0.52) * (1 - 0.35 * at / reach) + 0.03)
        image = _lesion(rng, view, image, finding, severity, centre, pixel)
    return photograph(rng, image * rng.between(0.9, 1.15) + rng.between(0.0, 0.02), rng.between(0.006, 0.015))


def _lesion(
    rng: Random, view: View, image: Array, finding: int, severity: int, centre: tuple[float, float], pixel: float
) -> Array:
    x, y = view.x, view.y
    radius = (0.065, 0.08, 0.1)[severity] * rng.between(0.92, 1.08)
    distance = ellipse(x, y, centre, (radius, radius * rng.between(0.85, 1.15)), rng.between(0, 3))
    if FINDINGS[finding] == "circumscribed mass":
        return image + inside(distance, 0.02) * 0.95 * (0.78 - image)
    if FINDINGS[finding] == "oil cyst":
        image = image + inside(distance, 0.02) * 0.95 * (0.06 - image)
        return image + inside(np.abs(distance) - 0.005, pixel) * 0.9 * (0.85 - image)
    if FINDINGS[finding] == "spiculated mass":
        layer = Layer(view.size)
        spikes = rng.pick((15, 17, 19, 21))
        angles = np.linspace(0, 2 * np.pi, spikes, endpoint=False) + rng.uniform(-0.15, 0.15, spikes)
        along = np.stack([np.cos(angles), np.sin(angles)], 1)
        across = np.stack([-along[:, 1], along[:, 0]], 1) * 0.2 * radius
        tips = along * (radius * rng.uniform(1.4, 2.7, (spikes, 1)))
        for points in centre + np.stack([across, tips, -across], 1):
            layer.polygon(view.place(points))
        cover: Array = np.maximum(smooth(distance + 0.15 * radius, 0.7 * radius), 0.8 * layer.array())
        return image + cover * 0.95 * (0.85 - image)
    count = (10, 15, 21)[severity]
    spread = rng.normal(0, 0.75 * radius, (count, 2)) * (1.0, 0.8) + centre
    calcium = dots(view.size, view.place(spread), rng.uniform(0.011, 0.016, (count, 1)) * (1, 1))
    return image + calcium * (1.0 - image)
