"""Dermoscopy: one lesion on skin, under a magnifier."""

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
)  # fmt: skip

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
SIZES = ("small", "medium-sized", "large")
HAIRS = ("none", "few", "many")


@dataclass(frozen=True)
class Patient:
    """finding: its number in FINDINGS; size: 0..2; pigment: of the skin, 0 fair to 1 dark; hairs: 0..2."""

    finding: int
    size: int
    pigment: float
    hairs: int
    elongation: float
    tone: float
    lesion: int


def patient(rng: Random) -> Patient:
    return Patient(
        finding=rng.pick(range(len(FINDINGS))), size=rng.pick((0, 1, 2)), pigment=rng.random() ** 1.5,
        hairs=rng.pick((0, 1, 2)), elongation=rng.between(0.72, 1.0), tone=rng.between(-1, 1), lesion=int(rng.integers(2**31)),
    )  # fmt: skip


def picture(rng: Random, patient: Patient, size: int) -> Picture:
    """Images of a patient show one lesion, turned and lit otherwise, grown or not."""
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
    main = rng.pick((
        f"dermoscopy showing {article(word)}", f"{SIZES[extent]} {word}", f"{word} with {feature}",
        f"{SIZES[extent]} {word} with {feature}", f"{feature}, typical of {article(word)}",
    ))  # fmt: skip
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
        closed("Does the lesion have an irregular border?", key == "melanoma", "attribute"),
        opened("What is the diagnosis?", key, "abnormality"),
        opened("How large is the lesion?", SIZES[extent], "severity"),
        opened("How many hairs cover the skin?", HAIRS[patient.hairs], "count"),
    ]
    return choose(rng, [presence(rng, [key], absent)], pool)


def _draw(rng: Random, patient: Patient, extent: int, size: int) -> np.ndarray:
    shift = (rng.between(-0.17, 0.17), rng.between(-0.17, 0.17))
    view = View(size, rng.between(0, 6.28), rng.between(0.92, 1.08), shift)
    x, y = view.x, view.y
    body = Random(patient.lesion)
    coarse, middle, fine = field(body, 4, size), field(body, 9, size), field(rng, 26, size)

    fair, dark = rgb(0.93, 0.76, 0.68), rgb(0.6, 0.42, 0.32)
    skin = fair + patient.pigment * (dark - fair)
    image = skin * (1 + 0.03 * field(rng, 3, size) + 0.025 * fine)

    radius = (0.16, 0.21, 0.26)[extent] * rng.between(0.94, 1.06)
    key = FINDINGS[patient.finding]
    ragged = {"melanoma": 0.055, "seborrheic keratosis": 0.015, "nevus": 0.008}.get(key, 0.025)
    shape = ellipse(x, y, (0.5, 0.5), (radius, radius * patient.elongation))
    mask, colour = _LESIONS[key](body, view, shape + ragged * coarse, radius, skin, coarse, middle, patient.tone)
    image += mask * (colour - image)

    if patient.hairs:
        image *= 1 - 0.75 * _hairs(rng, size, 3 if patient.hairs == 1 else 9)
    seen_x, seen_y = grid(size)
    off = np.sqrt((seen_x - 0.5) ** 2 + (seen_y - 0.5) ** 2)
    light = 1 - rng.between(0.3, 1.0) * np.clip(off - 0.3, 0, 1)
    light += rng.normal(0, 0.12) * (seen_x - 0.5) + rng.normal(0, 0.12) * (seen_y - 0.5)
    if rng.chance(0.35):
        light = light * inside(off - rng.between(0.5, 0.56), 0.02)
    image *= light * (rng.between(0.85, 1.1) * (1 + rgb(*rng.normal(0, 0.07, 3))))
    return photograph(rng, image, rng.between(0.008, 0.025))


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


_PIGMENTS = (rgb(0.52, 0.33, 0.22), rgb(0.3, 0.19, 0.15), rgb(0.72, 0.42, 0.38), rgb(0.36, 0.33, 0.37), rgb(0.66, 0.48, 0.34))


def _pigment(tone: float) -> Array:
    """Brown, black, pink, grey or tan: any may be the colour of a harmless lesion."""
    return _PIGMENTS[min(4, int((tone + 1) * 2.5))]


def _nevus(body, view, shape, radius, skin, coarse, middle, tone):
    u, v = view.x + 0.015 * coarse, view.y + 0.015 * middle
    network = np.cos(u * 120) * np.cos(v * 120)
    shade = 1 + 0.2 * network + 0.05 * coarse - 0.12 * smooth(shape + 0.6 * radius, radius)
    return smooth(shape, 0.06), _pigment(tone) * shade


def _melanoma(body, view, shape, radius, skin, coarse, middle, tone):
    colour = _pigment(tone) * (1 + 0.12 * middle)
    other = field(body, 6, view.size)
    for mask, paint in (
        (smooth(0.3 - middle, 0.8), (0.12, 0.08, 0.08)),
        (smooth(0.6 - other, 0.8), (0.38, 0.4, 0.46)),
        (smooth(0.8 + other, 0.8), (0.62, 0.36, 0.32)),
        (smooth(1.1 + middle, 0.8), (0.8, 0.7, 0.66)),
    ):
        colour = colour + mask * (rgb(*paint) - colour)
    return inside(shape, 0.025), colour


def _carcinoma(body, view, shape, radius, skin, coarse, middle, tone):
    colour = (0.5 * skin + 0.5 * (_pigment(tone) + rgb(0.25, 0.12, 0.12))) * (1 + 0.04 * middle)
    rim = inside(np.abs(shape + 0.03) - 0.012, 0.03)
    colour = colour + 0.35 * rim * (0.95 - colour)
    nests = 0.5 + body.normal(0, 0.4 * radius, (5, 2))
    blue = dots(view.size, view.place(nests), body.uniform(0.02, 0.035, (5, 2)), 0.85)
    colour = colour + blue * (rgb(0.36, 0.38, 0.48) - colour)
    vessels = Layer(view.size)
    for _ in range(3):
        point, heading = 0.5 + 0.85 * radius * _unit(body.between(0, 6.28)), 0.0
        heading = np.arctan2(*(0.5 - point)[::-1])
        _branch(body, view, vessels, point, heading, radius * 0.42, 0.016, 3)
    colour = colour + 0.85 * vessels.array() * (rgb(0.72, 0.1, 0.14) - colour)
    return smooth(shape, 0.04), colour


def _unit(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def _branch(rng, view, layer, start, heading, length, width, depth):
    end = start + length * _unit(heading)
    layer.line(view.place(np.stack([start, end])), width)
    for turn in (-0.5, 0.5) if depth > 1 else ():
        _branch(rng, view, layer, end, heading + turn + rng.normal(0, 0.2), length * 0.7, width * 0.75, depth - 1)


def _keratosis(body, view, shape, radius, skin, coarse, middle, tone):
    colour = _pigment(tone) * (1 + 0.07 * coarse + 0.07 * middle)
    cysts = 0.5 + body.uniform(-0.75, 0.75, (16, 2)) * radius
    size = body.uniform(0.012, 0.022, (16, 1)) * (1, 1)
    colour = colour + dots(view.size, view.place(cysts[:11]), size[:11], 0.9) * (rgb(0.97, 0.94, 0.86) - colour)
    colour = colour + dots(view.size, view.place(cysts[11:]), size[11:], 0.8) * (rgb(0.13, 0.08, 0.06) - colour)
    return inside(shape, 0.015), colour


def _haemangioma(body, view, shape, radius, skin, coarse, middle, tone):
    base = 0.6 * skin * rgb(0.95, 0.8, 0.82) + 0.4 * _pigment(tone)
    count = 14
    turn, far = np.arange(count) * 2.4, 0.88 * radius * np.sqrt((np.arange(count) + 0.5) / count)
    lagoons = 0.5 + np.stack([far * np.cos(turn), far * np.sin(turn)], 1) + body.normal(0, 0.008, (count, 2))
    red = dots(view.size, view.place(lagoons), radius * body.uniform(0.16, 0.25, (count, 2)), 1.0)
    hue = body.random()
    paint = rgb(0.66 - 0.4 * hue, 0.08 + 0.06 * hue, 0.13 + 0.15 * hue)
    return smooth(shape, 0.05), base + red * (paint * (1 + 0.1 * middle) - base)


_LESIONS = dict(zip(FINDINGS, (_nevus, _melanoma, _carcinoma, _keratosis, _haemangioma)))
