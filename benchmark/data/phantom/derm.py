"""Dermoscopy: one lesion on skin, magnified."""

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
    inside,
    photograph,
    rgb,
    smooth,
)
from benchmark.data.phantom.language import (
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

NAME = "dermoscopy image"
MULTI_LABEL = False
TERMS = {
    "nevus": ("common mole",),
    "melanoma": ("malignant melanoma",),
    "basal cell carcinoma": ("basalioma",),
    "seborrheic keratosis": ("keratotic lesion",),
    "haemangioma": ("vascular lesion",),
}
FINDINGS = tuple(TERMS)
FEATURES = (
    ("a regular pigment network", "an even brown colour"),
    ("an irregular border", "several colours", "blue and black patches"),
    ("branching vessels", "blue-grey ovoid nests"),
    ("white milia-like cysts", "a sharp border and white dots"),
    ("red lagoons", "red and purple lagoons"),
)
# Any lesion can have any of these colours, so colour alone does not distinguish lesions.
COLOURS = {
    "brown": rgb(0.52, 0.33, 0.22),
    "black": rgb(0.28, 0.18, 0.15),
    "pink": rgb(0.75, 0.44, 0.4),
    "red": rgb(0.58, 0.2, 0.2),
    "grey": rgb(0.36, 0.33, 0.37),
    "tan": rgb(0.66, 0.48, 0.34),
    "flesh": rgb(0.78, 0.6, 0.5),
}
SIZES = ("small", "medium-sized", "large")
HAIRS = ("none", "few", "many")


@dataclass(frozen=True)
class Patient:
    """A patient with one lesion.

    finding: its number in FINDINGS. size: 0..2. pigment: of the skin, 0 fair to 1 dark. hairs: 0..2.
    """

    finding: int
    size: int
    pigment: float
    hairs: int
    elongation: float
    colour: str
    lesion: int


def patient(rng: Random) -> Patient:
    """Draw a patient."""
    return Patient(
        finding=rng.pick(range(len(FINDINGS))),
        size=rng.pick((0, 1, 2)),
        pigment=rng.random() ** 1.5,
        hairs=rng.pick((0, 1, 2)),
        elongation=rng.between(0.72, 1.0),
        colour=rng.pick(tuple(COLOURS)),
        lesion=int(rng.integers(2**31)),
    )


def picture(rng: Random, patient: Patient, size: int) -> Picture:
    """Draw an image of a patient. All show one lesion, which may have grown, in another rotation and light."""
    extent = min(2, patient.size + rng.pick((0, 0, 1)))
    return Picture(
        report=_report(rng, patient, extent),
        label=patient.finding,
        questions=_questions(rng, patient, extent),
        image=_draw(rng, patient, extent, size),
    )


def _report(rng: Random, patient: Patient, extent: int) -> str:
    word = name(rng, FINDINGS[patient.finding], TERMS)
    feature = rng.pick(FEATURES[patient.finding])
    main = rng.pick(
        (
            f"dermoscopy showing {article(word)}",
            f"{SIZES[extent]} {word}",
            f"{word} with {feature}",
            f"{SIZES[extent]} {word} with {feature}",
            f"{feature}, typical of {article(word)}",
        )
    )
    end = ""
    if rng.chance(0.35):
        end = sentence(("no hairs", "few hairs over the lesion", "many hairs over the lesion")[patient.hairs])
    elif rng.chance(0.3):
        end = negation(rng, [key for i, key in enumerate(FINDINGS) if i != patient.finding], TERMS)
    return f"{sentence(main)} {end}".strip()


def _questions(rng: Random, patient: Patient, extent: int) -> list[Question]:
    key = FINDINGS[patient.finding]
    absent = [other for other in FINDINGS if other != key]
    pool = [
        modality(rng, NAME),
        closed("Is the lesion malignant?", key in ("melanoma", "basal cell carcinoma"), "abnormality"),
        closed("Are there hairs over the skin?", patient.hairs > 0, "attribute"),
        opened("What is the diagnosis?", key, "abnormality"),
        opened("How large is the lesion?", SIZES[extent], "severity"),
        opened("How many hairs cover the skin?", HAIRS[patient.hairs], "count"),
    ]
    return choose(rng, [presence(rng, [key], absent)], pool)


def _draw(rng: Random, patient: Patient, extent: int, size: int) -> np.ndarray:
    shift = (rng.between(-0.16, 0.16), rng.between(-0.16, 0.16))
    view = View(size, rng.between(0, 6.28), rng.between(0.92, 1.08), shift)
    fair, dark = rgb(0.93, 0.76, 0.68), rgb(0.6, 0.42, 0.32)
    skin = fair + patient.pigment * (dark - fair)
    image = skin * (1 + 0.07 * field(rng, 3, size) + 0.025 * field(rng, 26, size))
    radius = (0.17, 0.225, 0.28)[extent] * rng.between(0.94, 1.06)
    body = Random(patient.lesion)
    lesion = Lesion(
        body,
        view,
        radius,
        ellipse(view.x, view.y, (0.5, 0.5), (radius, radius * patient.elongation)),
        skin,
        COLOURS[patient.colour],
        field(body, 4, size),
        field(body, 9, size),
    )
    mask, colour = _LESIONS[patient.finding](lesion)
    image += mask * (colour - image)

    if patient.hairs:
        image *= 1 - 0.75 * _hairs(rng, size, 3 if patient.hairs == 1 else 9)
    seen_x, seen_y = grid(size)
    off = np.sqrt((seen_x - 0.5) ** 2 + (seen_y - 0.5) ** 2)
    light = 1 - rng.between(0.3, 1.0) * np.clip(off - 0.3, 0, 1)
    light += rng.normal(0, 0.12) * (seen_x - 0.5) + rng.normal(0, 0.12) * (seen_y - 0.5)
    if rng.chance(0.35):
        light = light * inside(off - rng.between(0.5, 0.56), 0.02)
    image *= light * (rng.between(0.85, 1.1) * (1 + rgb(*rng.normal(0, 0.05, 3))))
    return photograph(rng, image, rng.between(0.008, 0.025), 0.08)


def _hairs(rng: Random, size: int, count: int) -> Array:
    layer = Layer(size)
    t = np.linspace(-0.6, 0.6, 8)
    lie = rng.between(0, np.pi)
    for _ in range(count):
        angle, bend, (x, y) = lie + rng.normal(0, 0.4), rng.normal(0, 0.25), rng.random(2).tolist()
        along, across = t * rng.between(0.5, 1.0), bend * t * t
        c, s = np.cos(angle), np.sin(angle)
        layer.line(np.stack([x + c * along - s * across, y + s * along + c * across], 1), 0.009, rng.between(0.6, 1.0))
    return layer.array()


@dataclass(frozen=True)
class Lesion:
    """What the drawing of a lesion needs.

    body: the random stream of everything that stays the same from image to image. outline: distance to an ellipse of
    ``radius`` around the middle of the view. coarse, fine: fields of noise. colour: of the lesion, where its features
    have no colour of their own.
    """

    body: Random
    view: View
    radius: float
    outline: Array
    skin: Array
    colour: Array
    coarse: Array
    fine: Array

    def spots(self, centres: np.ndarray, radii: np.ndarray) -> Array:
        """Draw spots; centres: [n, 2], in radii from the middle of the lesion; radii: [n, 2]."""
        return dots(self.view.size, self.view.place(0.5 + self.radius * centres), radii)


def _over(below: Array, mask: Array, colour: Array) -> Array:
    return below + mask * (colour - below)


def _nevus(lesion: Lesion) -> tuple[Array, Array]:
    u, v = lesion.view.x + 0.015 * lesion.coarse, lesion.view.y + 0.015 * lesion.fine
    network = np.cos(u * 115) * np.cos(v * 115)
    centre = smooth(lesion.outline + 0.6 * lesion.radius, lesion.radius)
    return smooth(lesion.outline + 0.008 * lesion.coarse, 0.06), lesion.colour * (1 + 0.4 * network - 0.12 * centre)


def _melanoma(lesion: Lesion) -> tuple[Array, Array]:
    colour = lesion.colour * (1 + 0.12 * lesion.fine)
    other = field(lesion.body, 6, lesion.view.size)
    for mask, patch in (
        (0.3 - lesion.fine, rgb(0.1, 0.07, 0.07)),
        (0.5 - other, rgb(0.36, 0.4, 0.5)),
        (0.7 + other, rgb(0.62, 0.3, 0.27)),
    ):
        colour = _over(colour, smooth(mask, 0.8), patch)
    return inside(lesion.outline + 0.065 * lesion.coarse, 0.025), colour


def _carcinoma(lesion: Lesion) -> tuple[Array, Array]:
    outline = lesion.outline + 0.025 * lesion.coarse
    colour = (0.5 * lesion.skin + 0.5 * (lesion.colour + rgb(0.15, 0.07, 0.07))) * (1 + 0.04 * lesion.fine)
    colour = _over(colour, 0.35 * inside(np.abs(outline + 0.03) - 0.012, 0.03), rgb(0.95, 0.95, 0.95))
    nests = lesion.spots(lesion.body.normal(0, 0.4, (5, 2)), lesion.body.uniform(0.02, 0.035, (5, 2)))
    colour = _over(colour, 0.85 * nests, rgb(0.36, 0.38, 0.48))
    layer = Layer(lesion.view.size)
    for angle in lesion.body.uniform(0, 2 * np.pi, 3).tolist():
        start = 0.5 + 0.85 * lesion.radius * np.array([math.cos(angle), math.sin(angle)])
        _vessel(lesion, layer, start, angle + np.pi, 0.42 * lesion.radius, 0.016)
    return smooth(outline, 0.04), _over(colour, 0.85 * layer.array(), rgb(0.72, 0.1, 0.14))


def _vessel(lesion: Lesion, layer: Layer, start: np.ndarray, heading: float, length: float, width: float) -> None:
    """Draw a vessel that forks twice."""
    end = start + length * np.array([math.cos(heading), math.sin(heading)])
    layer.line(lesion.view.place(np.stack([start, end])), width)
    if width > 0.01:
        for turn in (-0.5, 0.5):
            _vessel(lesion, layer, end, heading + turn + lesion.body.normal(0, 0.2), 0.7 * length, 0.75 * width)


def _keratosis(lesion: Lesion) -> tuple[Array, Array]:
    colour = lesion.colour * (1 + 0.07 * lesion.coarse + 0.07 * lesion.fine)
    centres, radii = lesion.body.uniform(-0.75, 0.75, (26, 2)), lesion.body.uniform(0.014, 0.024, (26, 1)) * (1, 1)
    colour = _over(colour, 0.8 * lesion.spots(centres[20:], radii[20:]), rgb(0.13, 0.08, 0.06))
    colour = _over(colour, 0.9 * lesion.spots(centres[:20], radii[:20]), rgb(0.97, 0.94, 0.86))
    return inside(lesion.outline + 0.015 * lesion.coarse, 0.015), colour


def _haemangioma(lesion: Lesion) -> tuple[Array, Array]:
    below = 0.6 * lesion.skin * rgb(0.95, 0.8, 0.82) + 0.4 * lesion.colour
    number = np.arange(14)
    turn, far = 2.4 * number, 0.88 * np.sqrt((number + 0.5) / 14)
    centres = np.stack([far * np.cos(turn), far * np.sin(turn)], 1) + lesion.body.normal(0, 0.04, (14, 2))
    lagoons = lesion.spots(centres, lesion.radius * lesion.body.uniform(0.16, 0.25, (14, 2)))
    purple = lesion.body.random()
    red = rgb(0.66 - 0.4 * purple, 0.08 + 0.06 * purple, 0.13 + 0.15 * purple) * (1 + 0.1 * lesion.fine)
    return smooth(lesion.outline + 0.025 * lesion.coarse, 0.05), _over(below, lagoons, red)


_LESIONS = (_nevus, _melanoma, _carcinoma, _keratosis, _haemangioma)
