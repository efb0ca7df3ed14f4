"""Frontal chest X-rays. The patient's right side is on the left of the image."""

from dataclasses import dataclass, replace

import numpy as np

from benchmark.data.phantom.canvas import Array, Layer, Random, View, bump, ellipse, field, inside, photograph, smooth
from benchmark.data.phantom.language import (
    NUMBERS,
    Picture,
    Question,
    choose,
    closed,
    listing,
    modality,
    name,
    negation,
    opened,
    presence,
    sentence,
)

NAME = "chest x-ray"
MULTI_LABEL = True
TERMS = {
    "consolidation": ("airspace opacity",),
    "pleural effusion": ("pleural fluid",),
    "pneumothorax": ("collapsed lung",),
    "cardiomegaly": ("enlarged heart",),
    "nodule": ("rounded lesion",),
    "pacemaker": ("cardiac device",),
}
FINDINGS = tuple(TERMS)
SEVERITIES = ("small", "moderate", "large")
ZONES = ("upper", "middle", "lower")
SIDES = {-1: "right", 1: "left"}


@dataclass(frozen=True)
class Finding:
    """One finding of a patient.

    severity: 0..2. foci: the side and zone of each; sides are -1 for the patient's right and +1 for the left, zones
    0..2.
    """

    severity: int
    foci: tuple[tuple[int, int], ...]

    @property
    def side(self) -> str:
        """The side of the patient, in words."""
        sides = {side for side, _ in self.foci}
        return "both sides" if len(sides) == 2 else SIDES[sides.pop()]


@dataclass(frozen=True)
class Patient:
    """The anatomy of a patient, which is the same in all images, and the findings by name."""

    width: float
    heart: float
    dome: float
    rib_spacing: float
    bone: float
    neck: float
    tissue: float
    raised: tuple[float, float]
    shifted: float
    findings: dict[str, Finding]


def patient(rng: Random) -> Patient:
    """Draw a patient."""
    return Patient(
        width=rng.between(0.92, 1.08),
        raised=(rng.between(0, 0.15), rng.between(0, 0.15)),
        shifted=rng.between(-0.045, 0.045),
        heart=rng.between(0.84, 1.12),
        dome=rng.between(0.5, 1.5),
        rib_spacing=rng.between(0.072, 0.088),
        bone=rng.between(0.035, 0.085),
        neck=rng.between(0.09, 0.13),
        tissue=rng.between(0.4, 0.55),
        findings=_disease(rng),
    )


def _disease(rng: Random) -> dict[str, Finding]:
    if rng.chance(0.2):
        return {}
    chosen = rng.some(FINDINGS, rng.pick((1, 2, 3), (0.5, 0.35, 0.15)))
    return {finding: _finding(rng, finding) for finding in FINDINGS if finding in chosen}


def _finding(rng: Random, finding: str) -> Finding:
    severity = rng.pick((0, 1, 2))
    foci = [(side, zone) for side in (-1, 1) for zone in (0, 1, 2)]
    if finding == "nodule":
        return Finding(severity, tuple(rng.some(foci, rng.pick((1, 2, 3)))))
    if finding in ("consolidation", "pleural effusion") and rng.chance(0.2):
        return Finding(severity, ((-1, rng.pick((0, 1, 2))), (1, rng.pick((0, 1, 2)))))
    return Finding(severity, (rng.pick(foci),))


def picture(rng: Random, patient: Patient, size: int) -> Picture:
    """Draw an image of a patient. From one image to the next findings get better or worse, or disappear."""
    findings = {
        key: replace(finding, severity=min(2, max(0, finding.severity + rng.pick((-1, 0, 0, 1)))))
        for key, finding in patient.findings.items()
        if key == "pacemaker" or not rng.chance(0.12)
    }
    return Picture(
        report=_report(rng, findings),
        label=[int(key in findings) for key in FINDINGS],
        questions=_questions(rng, findings),
        image=_draw(rng, patient, findings, size),
    )


def _phrase(rng: Random, key: str, finding: Finding) -> str:
    word = name(rng, key, TERMS)
    side = "bilateral" if finding.side == "both sides" else finding.side
    severity = SEVERITIES[finding.severity]
    if key == "cardiomegaly":
        degree = ("mild", "moderate", "marked")[finding.severity]
        return rng.pick((f"{degree} {word}" if word == key else f"{degree}ly {word}", word))
    if key == "pacemaker":
        return rng.pick((f"{side} {word}", f"{word} on the {side}"))
    if key == "nodule":
        zone = ZONES[finding.foci[0][1]]
        if len(finding.foci) == 1:
            return rng.pick((f"{severity} {side} {zone} zone {word}", f"{severity} {word} in the {side} {zone} zone"))
        return f"{NUMBERS[len(finding.foci)]} {severity} {word}s"
    if key == "consolidation" and len(finding.foci) == 1:
        zone = ZONES[finding.foci[0][1]]
        return rng.pick((f"{severity} {side} {zone} zone {word}", f"{word} in the {side} {zone} zone"))
    return rng.pick((f"{severity} {side} {word}", f"{side} {word}"))


def _report(rng: Random, findings: dict[str, Finding]) -> str:
    if not findings:
        return rng.pick(
            (
                "Normal chest x-ray.",
                "No acute cardiopulmonary abnormality.",
                "The lungs are clear.",
                "The lungs are clear and the heart is of normal size.",
                f"No abnormality. {negation(rng, FINDINGS, TERMS)}",
                f"Clear lungs. {negation(rng, FINDINGS, TERMS)}",
            )
        )
    phrases = rng.some([_phrase(rng, key, finding) for key, finding in findings.items()], len(findings))
    if rng.chance(0.35):
        text = f"Chest x-ray showing {listing(phrases)}."
    elif len(phrases) == 3 or rng.chance(0.4):
        text = sentence(listing(phrases))
    else:
        text = " ".join(sentence(rng.pick((phrase, f"{phrase} noted"))) for phrase in phrases)
    if rng.chance(0.5):
        text = f"{text} {negation(rng, [key for key in FINDINGS if key not in findings], TERMS)}"
    return text


def _questions(rng: Random, findings: dict[str, Finding]) -> list[Question]:
    absent = [key for key in FINDINGS if key not in findings]
    pool = [
        modality(rng, NAME),
        closed("Is the heart enlarged?", "cardiomegaly" in findings, "presence"),
        closed("Is this image normal?", not findings, "abnormality"),
    ]
    if len(findings) < 2:
        pool.append(opened("What is the main abnormality?", next(iter(findings), "none"), "abnormality"))
    for key, finding in findings.items():
        if key != "cardiomegaly":
            pool.append(opened(f"Which side is the {key} on?", finding.side, "side"))
        if key != "pacemaker":
            pool.append(opened(f"How large is the {key}?", SEVERITIES[finding.severity], "severity"))
        if key == "consolidation" and len(finding.foci) == 1:
            pool.append(opened("Which zone is the consolidation in?", ZONES[finding.foci[0][1]], "location"))
        if key == "nodule":
            pool.append(opened("How many nodules are there?", NUMBERS[len(finding.foci)], "count"))
    return choose(rng, [presence(rng, list(findings), absent)], pool)


def _draw(rng: Random, patient: Patient, findings: dict[str, Finding], size: int) -> np.ndarray:
    view = View(size, rng.normal(0, 0.07), rng.between(0.84, 1.1), (rng.between(-0.07, 0.07), rng.between(-0.07, 0.07)))
    x, y, pixel = view.x, view.y, 1.2 / size
    left = x > 0.5
    lateral = np.abs(x - 0.5) * (1 / patient.width)
    fine, coarse = field(rng, 20, size), field(rng, 8, size)
    grain = field(rng, 15, size)
    breath = rng.between(-0.03, 0.05)
    tissue = patient.tissue

    def chest(lateral: Array, y: Array) -> Array:
        """Distance to the inside of the rib cage on each side, without a diaphragm."""
        u = (lateral - (0.155 + 0.085 * y)) * (1 / 0.15)
        v = (y - 0.49) * (1 / 0.385)
        v *= v
        return np.sqrt(u * u + v * (0.35 + 0.65 * v)) * 0.15 - 0.15

    wall = chest(lateral, y)
    offset = lateral - 0.19
    dome = (
        0.8
        + breath
        + 0.02 * patient.dome
        - np.where(left, patient.raised[1], patient.raised[0]).astype(np.float32)
        + 1.8 * offset * offset
    )
    above = y - dome
    lung = inside(wall, 0.02) * inside(above, 0.02)
    shoulder = np.clip((y - 0.04) * 8, 0, 1)
    torso = smooth(lateral - (patient.neck + (0.47 - patient.neck) * shoulder * shoulder), 0.03)
    image = 0.03 + torso * (
        tissue + 0.06 * field(rng, 3, size) + 0.2 * inside(-above, 0.06) - 0.5 * offset * np.abs(offset) * 4
    )

    hilum = bump(lateral, y, (0.09, 0.48), (0.09, 0.15))
    air = (
        np.where(left, *(rng.between(0.12, 0.34) for _ in SIDES)).astype(np.float32)
        + hilum * (0.05 + 0.05 * fine)
        + 0.012 * fine
    )
    if "pneumothorax" in findings:
        gap = (0.065, 0.09, 0.115)[findings["pneumothorax"].severity]
        pleura = np.where(
            left == (findings["pneumothorax"].foci[0][0] > 0), chest(lateral + gap, y - 0.9 * gap), np.float32(-1)
        )
        air = np.where(pleura > 0, np.float32(0.02), air) + 0.5 * inside(np.abs(pleura) - 0.006, pixel)
    image += lung * (air - image)

    rib = np.cos((y - 0.9 * lateral * lateral - rng.random()) * (2 * np.pi / patient.rib_spacing))
    image += patient.bone * smooth(wall - 0.02, 0.03) * inside(above - 0.02, 0.1) * np.clip(1.6 * rib - 0.3, 0, 1)
    image += torso * inside(lateral - 0.035, 0.03) * (0.07 + 0.03 * np.cos(y * 75))
    middle = inside(lateral - 0.05 - 0.02 * np.cos(y * 9), 0.04) * inside(0.12 - y, 0.1)
    image += middle * 0.8 * (tissue + 0.1 - image)
    enlarged = findings.get("cardiomegaly")
    swell = (1.28, 1.4, 1.52)[enlarged.severity] if enlarged else patient.heart
    centre = (0.5 + patient.shifted + 0.045 * swell, 0.685 + 0.5 * breath)
    heart = ellipse(x, y, centre, (0.145 * swell * patient.width, 0.065 + 0.065 * swell), 0.45)
    image += smooth(heart, 0.035) * 0.9 * (tissue + 0.14 - image)
    image += smooth(ellipse(x, y, (0.545, 0.36), (0.035, 0.05)), 0.03) * 0.6 * (tissue + 0.1 - image)

    for key, finding in findings.items():
        for at, zone in finding.foci:
            centre = (
                0.5 + at * patient.width * rng.between(0.18, 0.25),
                (0.3, 0.46, 0.61)[zone] + rng.between(-0.04, 0.04),
            )
            if key == "consolidation":
                radius = (0.08, 0.1, 0.125)[finding.severity]
                patch = smooth(ellipse(x, y, centre, (radius, radius * rng.between(0.8, 1.3))) + 0.02 * coarse, 0.06)
                image += lung * patch * 0.85 * (tissue - 0.02 + 0.28 * grain - image)
            if key == "pleural effusion":
                top = 0.785 + breath - (0.03, 0.07, 0.12)[finding.severity]
                level = top - 0.11 * np.exp((lateral - 0.355) * 14)
                fluid = inside(level - y, 0.025) * inside(wall - 0.005, 0.02) * (left == (at > 0))
                image += fluid * 0.95 * (tissue + 0.16 - image)
            if key == "nodule":
                radius = (0.038, 0.046, 0.055)[finding.severity]
                image += smooth(ellipse(x, y, centre, (radius, radius)), 0.02) * 0.95 * (tissue + 0.35 - image)
    image += 2 * patient.bone * _clavicles(view, patient)
    if rng.chance(0.65):
        image += _equipment(rng, view) * (0.97 - image)
    if "pacemaker" in findings:
        image += _pacemaker(rng, view, findings["pacemaker"].foci[0][0]) * (0.97 - image)
    contrast = rng.between(0.9, 1.2)
    return photograph(rng, 0.45 + contrast * (image - 0.45) + rng.between(-0.08, 0.08), rng.between(0.008, 0.02))


def _clavicles(view: View, patient: Patient) -> Array:
    layer = Layer(view.size)
    for side in (-1, 1):
        bone = [(0.5 + side * dx, y) for dx, y in ((0.04, 0.2), (0.16, 0.155), (0.27, 0.165), (0.36, 0.13))]
        layer.line(view.place(np.array(bone)), 0.022, 0.35 + 2 * patient.bone)
    return layer.array()


def _equipment(rng: Random, view: View) -> Array:
    """Equipment that is no finding: clips of a monitor on the skin with wires out of the image, and a stomach tube."""
    layer = Layer(view.size)
    if rng.chance(0.5):
        layer.line(view.place(np.array([(0.5, -0.1), (0.49, 0.4), (0.5, 0.7), (0.6, 0.85)])), 0.014)
    for side in rng.some((-1, 1), rng.pick((1, 1, 2))):
        x, y = 0.5 + side * rng.between(0.14, 0.3), rng.between(0.22, 0.36)
        layer.line(view.place(np.array([(x, y), (x + side * 0.12, y + 0.2), (x + side * 0.2, 1.1)])), 0.009, 0.8)
        layer.line(view.place(np.array([(x - 0.035, y), (x + 0.035, y)])), 0.07)
    return layer.array()


def _pacemaker(rng: Random, view: View, side: int) -> Array:
    layer = Layer(view.size)
    x, y = 0.5 + side * rng.between(0.18, 0.29), rng.between(0.22, 0.36)
    t = np.linspace(0, 2 * np.pi, 24)
    corner = np.stack([np.cos(t), np.sin(t)], 1)
    layer.polygon(view.place((x, y) + np.sign(corner) * np.abs(corner) ** 0.5 * (0.055, 0.045)))
    lead = [
        (x, y - 0.03),
        (0.5 + side * 0.12, 0.19),
        (0.5 + side * 0.04, 0.24),
        (0.47, 0.4),
        (0.47, 0.58),
        (0.52, 0.7),
        (0.6, 0.72),
    ]
    layer.line(view.place(np.array(lead)), 0.013)
    return layer.array()
