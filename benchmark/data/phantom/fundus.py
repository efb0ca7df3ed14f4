"""Fundus photographs. The optic disc is on the right of the image for a right eye, on the left for a left eye."""

from dataclasses import dataclass

import numpy as np

from benchmark.data.phantom.canvas import (
    Array,
    Layer,
    Random,
    View,
    bump,
    dots,
    ellipse,
    field,
    grid,
    inside,
    photograph,
    rgb,
    smooth,
)
from benchmark.data.phantom.language import (
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

NAME = "fundus photograph"
MULTI_LABEL = False
TERMS = {
    "normal": ("healthy retina",),
    "diabetic retinopathy": ("diabetic changes",),
    "glaucoma": ("glaucomatous cupping",),
    "macular degeneration": ("macular drusen",),
    "vein occlusion": ("venous occlusion",),
}
FINDINGS = tuple(TERMS)
SEVERITIES = ("mild", "moderate", "severe")
FEATURES = (
    (),
    ("dot haemorrhages and hard exudates", "scattered exudates and haemorrhages"),
    ("a large cup", "a large cup and a thin rim"),
    ("drusen around the macula", "yellow spots at the macula"),
    ("flame haemorrhages in the {} retina", "haemorrhages along the {} arcade"),
)
PLACES = ("upper", "lower")
DISC = (0.755, 0.49)
MACULA = (0.43, 0.525)


@dataclass(frozen=True)
class Patient:
    """A patient with one disease.

    finding: its number in FINDINGS. severity: 0..2. place: of a vein occlusion, 0 upper, 1 lower.
    """

    finding: int
    severity: int
    place: int
    pigment: float
    cup: float
    disc: float
    vessels: int


def patient(rng: Random) -> Patient:
    """Draw a patient."""
    return Patient(
        finding=rng.pick(range(len(FINDINGS))),
        severity=rng.pick((0, 1, 2)),
        place=rng.pick((0, 1)),
        pigment=rng.random(),
        cup=rng.between(0.2, 0.34),
        disc=rng.between(0.09, 0.105),
        vessels=int(rng.integers(2**31)),
    )


def picture(rng: Random, patient: Patient, size: int) -> Picture:
    """Draw an image of one eye of a patient. The disease is more or less severe in each, or absent."""
    finding = 0 if rng.chance(0.06) else patient.finding
    severity = min(2, max(0, patient.severity + rng.pick((-1, 0, 0, 1))))
    left = rng.chance(0.5)
    return Picture(
        report=_report(rng, patient, finding, severity, left),
        label=finding,
        questions=_questions(rng, patient, finding, severity, left),
        image=_draw(rng, patient, finding, severity, left, size),
    )


def _report(rng: Random, patient: Patient, finding: int, severity: int, left: bool) -> str:
    eye = "left" if left else "right"
    if finding == 0:
        main = rng.pick(
            (
                "normal fundus",
                f"normal {eye} fundus",
                "healthy retina",
                f"fundus photograph of a normal {eye} eye",
                f"healthy retina of the {eye} eye",
            )
        )
    else:
        word = name(rng, FINDINGS[finding], TERMS)
        feature = rng.pick(FEATURES[finding]).format(PLACES[patient.place])
        main = rng.pick(
            (
                f"fundus photograph showing {word}",
                f"{SEVERITIES[severity]} {word}",
                f"{SEVERITIES[severity]} {word} of the {eye} eye",
                f"{eye} eye with {word}",
                f"{word} with {feature}",
                f"{feature}, in keeping with {word}",
            )
        )
    absent = [key for i, key in enumerate(FINDINGS) if i not in (0, finding)]
    return f"{sentence(main)} {negation(rng, absent, TERMS)}" if rng.chance(0.4) else sentence(main)


def _questions(rng: Random, patient: Patient, finding: int, severity: int, left: bool) -> list[Question]:
    key = FINDINGS[finding]
    absent = [other for i, other in enumerate(FINDINGS) if i not in (0, finding)]
    pool = [
        modality(rng, NAME),
        opened("Which eye is shown?", "left" if left else "right", "side"),
        opened("On which side of the image is the optic disc?", "left" if left else "right", "location"),
        opened("What is the diagnosis?", key if finding else "none", "abnormality"),
        closed("Are there haemorrhages?", key in ("diabetic retinopathy", "vein occlusion"), "presence"),
        closed("Is the cup of the disc enlarged?", key == "glaucoma", "presence"),
    ]
    if finding:
        pool.append(opened("How severe is the disease?", SEVERITIES[severity], "severity"))
    if key == "vein occlusion":
        pool += [opened("Which part of the retina is affected?", PLACES[patient.place], "location")] * 2
    return choose(rng, [presence(rng, [key] if finding else [], absent)], pool)


def _draw(rng: Random, patient: Patient, finding: int, severity: int, left: bool, size: int) -> np.ndarray:
    shift = (rng.between(-0.12, 0.12), rng.between(-0.1, 0.1))
    view = View(size, rng.normal(0, 0.12), rng.between(0.92, 1.22), shift, mirror=left)
    x, y = view.x, view.y
    key = FINDINGS[finding]
    coarse, middle = field(rng, 5, size), field(rng, 16, size)

    pale, deep = rgb(0.9, 0.46, 0.22), rgb(0.62, 0.24, 0.1)
    retina = pale + patient.pigment * (deep - pale)
    shade = 1 + 0.17 * field(rng, 3, size) + 0.04 * coarse + 0.05 * middle
    shade += rng.between(-0.45, 0) * bump(x, y, MACULA, (0.06, 0.06))
    shade += rng.between(-0.4, 0.5) * bump(x, y, MACULA, (0.13, 0.13))
    image = retina * (shade + rng.between(0, 0.8) * bump(x, y, DISC, (0.12, 0.12)))

    if key == "vein occlusion":
        image += 0.9 * _flames(rng, view, patient.place, severity) * (rgb(0.34, 0.03, 0.04) - image)
    disc = ellipse(x, y, DISC, (patient.disc * 0.92, patient.disc))
    ratio = (0.78, 0.83, 0.88)[severity] if key == "glaucoma" else patient.cup
    glow, pallor = rng.between(0.75, 1.08), rng.between(0, 0.5)
    image += smooth(disc, 0.02) * (glow * rgb(1.0, 0.74 + 0.14 * pallor, 0.36 + 0.28 * pallor) - image)
    cup = ellipse(x, y, (DISC[0] - 0.004, DISC[1]), (patient.disc * 0.92 * ratio, patient.disc * ratio))
    image += smooth(cup, 0.02) * (glow * rgb(1.0, 0.97, 0.85) - image)
    arteries, veins = _vessels(Random(patient.vessels), view)
    image += 0.6 * arteries * (rgb(0.66, 0.16, 0.09) - image)
    image += 0.75 * veins * (rgb(0.45, 0.08, 0.07) - image)
    if key == "diabetic retinopathy":
        n = (12, 18, 25)[severity]
        blots = dots(size, _scatter(rng, view, n), rng.uniform(0.018, 0.032, (n, 2)))
        image += 0.9 * blots * (rgb(0.3, 0.03, 0.04) - image)
        exudates = dots(size, _scatter(rng, view, n), rng.uniform(0.015, 0.026, (n, 2)))
        image += 0.95 * exudates * (rgb(1.0, 0.95, 0.6) - image)
    if key == "macular degeneration":
        n = (16, 24, 34)[severity]
        drusen = view.place(rng.normal(MACULA, (0.06, 0.07, 0.08)[severity], (n, 2)))
        image += 0.9 * dots(size, drusen, rng.uniform(0.013, 0.022, (n, 2))) * (rgb(1.0, 0.88, 0.55) - image)

    seen_x, seen_y = grid(size)
    off = np.sqrt((seen_x - 0.5) ** 2 + (seen_y - 0.5) ** 2)
    light = 1.05 - 0.9 * off * off + rng.normal(0, 0.3) * (seen_x - 0.5) + rng.normal(0, 0.3) * (seen_y - 0.5)
    light *= inside(off - 0.475, 1.5 / size)
    tint = rng.between(0.85, 1.12) * (1 + rgb(*rng.normal(0, 0.05, 3)))
    return photograph(rng, image * (light * tint), rng.between(0.008, 0.022), 0.05)


def _scatter(rng: Random, view: View, count: int) -> np.ndarray:
    """Draw places on the retina away from the disc, around two centres."""
    angle, far = rng.random(2) * 6.28, rng.uniform(0.08, 0.24, 2)
    centres = np.array([0.46, 0.5]) + far[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return view.place(centres[rng.integers(2, size=count)] + rng.normal(0, 0.075, (count, 2)))


def _flames(rng: Random, view: View, place: int, severity: int) -> Array:
    """Draw streaks along the nerve fibres, which fan out from the disc over one half of the retina."""
    n = (32, 45, 60)[severity]
    sign = 1 if place else -1
    far = rng.uniform(0.1, 0.46, n)
    angle = np.pi - sign * rng.normal(0.75, 0.22, n)
    at = np.array(DISC) + np.stack([far * np.cos(angle), far * np.abs(np.sin(angle)) * sign], 1)
    lie = np.arctan2(at[:, 1] - DISC[1], at[:, 0] - DISC[0]) + rng.normal(0, 0.15, n)
    tip = np.stack([np.cos(lie), np.sin(lie)], 1)
    turned = view.place(at + tip) - view.place(at)
    radii = rng.uniform(0.024, 0.048, (n, 1)) * (1, 0.36)
    return dots(view.size, view.place(at), radii, 1.0, np.arctan2(turned[:, 1], turned[:, 0]))


_ARCADES = np.array(
    [
        [DISC, (0.70, 0.30), (0.52, 0.17), (0.18, 0.24)],
        [DISC, (0.70, 0.70), (0.52, 0.84), (0.18, 0.78)],
        [DISC, (0.80, 0.33), (0.86, 0.25), (0.94, 0.16)],
        [DISC, (0.80, 0.66), (0.86, 0.74), (0.94, 0.86)],
    ]
)
_T = np.linspace(0, 1, 13)[:, None]
_BEZIER = np.concatenate([(1 - _T) ** 3, 3 * _T * (1 - _T) ** 2, 3 * _T**2 * (1 - _T), _T**3], 1)


def _vessels(rng: Random, view: View) -> tuple[Array, Array]:
    """Draw arteries and veins: an arcade of each into the four quadrants, with side branches."""
    layers = []
    for width, offset in ((0.011, 0.018), (0.015, -0.018)):
        layer = Layer(view.size)
        bent = _ARCADES + (rng.normal(0, 0.02, (4, 4, 2)) + offset) * np.array([[0.0], [1.0], [1.0], [1.4]])
        trunks = _BEZIER @ bent
        forks = trunks[:, 3:10:3]
        ahead = trunks[:, 4:11:3] - forks
        ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
        aside = ahead[..., ::-1] * (-1, 1) * rng.choice((-1.0, 1.0), (4, 3, 1))
        far = rng.uniform(0.1, 0.2, (4, 3, 1))
        branches = np.stack(
            [forks, forks + far * (0.4 * ahead + 0.2 * aside), forks + far * (0.8 * ahead + 0.6 * aside)], 2
        )
        for trunk in view.place(trunks):
            layer.line(trunk[:8], width)
            layer.line(trunk[7:], 0.65 * width)
        for branch in view.place(branches).reshape(-1, 3, 2):
            layer.line(branch, 0.5 * width)
        layers.append(layer.array())
    return layers[0], layers[1]
