"""The general domain: coloured, textured shapes on a background, so weights pretrained on it know no medicine."""

import math
from dataclasses import dataclass

import numpy as np

from benchmark.data.phantom.canvas import Array, Layer, Random, View, field, inside, photograph, rgb
from benchmark.data.phantom.language import (
    NUMBERS,
    Picture,
    Question,
    article,
    choose,
    closed,
    opened,
    presence,
    sentence,
)

NAME = "picture of shapes"
MULTI_LABEL = False
TERMS = {"circle": (), "square": (), "triangle": (), "star": (), "cross": (), "ring": ()}
FINDINGS = tuple(TERMS)
COLOURS = {
    "red": rgb(0.85, 0.15, 0.15),
    "orange": rgb(0.95, 0.55, 0.1),
    "yellow": rgb(0.95, 0.88, 0.2),
    "green": rgb(0.2, 0.65, 0.25),
    "blue": rgb(0.15, 0.3, 0.85),
    "purple": rgb(0.55, 0.2, 0.7),
}
GROUNDS = {"black": rgb(0.1, 0.1, 0.1), "grey": rgb(0.45, 0.45, 0.45), "white": rgb(0.9, 0.9, 0.9)}
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = ("small", "large")
PLACES = ("upper left", "upper right", "lower left", "lower right", "centre")
_CENTRES = ((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72), (0.5, 0.5))


@dataclass(frozen=True)
class Patient:
    """The content of one image.

    shape: its number in FINDINGS. places: numbers in PLACES, one for each shape.
    """

    shape: int
    colour: str
    texture: str
    size: int
    places: tuple[int, ...]
    ground: str
    ground_texture: str


def patient(rng: Random) -> Patient:
    """Draw a patient."""
    size, count = rng.pick((0, 1)), rng.pick((1, 2, 3, 4), (0.4, 0.2, 0.2, 0.2))
    places = tuple(rng.some(range(4 if size and count > 1 else 5), count))
    return Patient(
        shape=rng.pick(range(len(FINDINGS))),
        colour=rng.pick(tuple(COLOURS)),
        texture=rng.pick(TEXTURES),
        size=size,
        places=places,
        ground=rng.pick(tuple(GROUNDS)),
        ground_texture=rng.pick(("plain", "striped")),
    )


def picture(rng: Random, patient: Patient, size: int) -> Picture:
    """Draw the image of a patient; each has one."""
    return Picture(
        report=_caption(rng, patient),
        label=patient.shape,
        questions=_questions(rng, patient),
        image=_draw(rng, patient, size),
    )


def _caption(rng: Random, patient: Patient) -> str:
    count = len(patient.places)
    shape = FINDINGS[patient.shape]
    words = [SIZES[patient.size]] if rng.chance(0.7) else []
    words.append(patient.colour)
    if patient.texture != "plain" and rng.chance(0.8):
        words.append(patient.texture)
    noun = " ".join([*words, shape if count == 1 else shape + ("es" if shape.endswith("s") else "s")])
    noun = article(noun) if count == 1 else f"{NUMBERS[count]} {noun}"
    ground = (
        f"a {patient.ground} background"
        if patient.ground_texture == "plain"
        else f"a striped {patient.ground} background"
    )
    if count == 1 and rng.chance(0.6):
        place = "in the centre" if patient.places[0] == 4 else f"in the {PLACES[patient.places[0]]}"
        return sentence(rng.pick((f"{noun} {place}", f"{noun} {place} on {ground}", f"a picture of {noun} {place}")))
    return sentence(rng.pick((noun, f"{noun} on {ground}", f"a picture of {noun}", f"a picture of {noun} on {ground}")))


def _questions(rng: Random, patient: Patient) -> list[Question]:
    shape = FINDINGS[patient.shape]
    asked = patient.colour if rng.chance(0.5) else rng.pick([colour for colour in COLOURS if colour != patient.colour])
    pool = [
        opened("What shape is shown?", shape, "shape"),
        opened("What colour are the shapes?", patient.colour, "colour"),
        closed(f"Are the shapes {asked}?", asked == patient.colour, "colour"),
        opened("What is the texture of the shapes?", patient.texture, "texture"),
        opened("How many shapes are there?", NUMBERS[len(patient.places)], "count"),
        opened("What colour is the background?", patient.ground, "colour"),
        opened("How large are the shapes?", SIZES[patient.size], "size"),
    ]
    if len(patient.places) == 1:
        pool.append(opened("Where is the shape?", PLACES[patient.places[0]], "location"))
    return choose(rng, [presence(rng, [shape], [other for other in FINDINGS if other != shape])], pool)


def _texture(kind: str, x: Array, y: Array, angle: float, pitch: float) -> Array:
    """A texture of 0 and 1 with soft edges, [size, size]."""
    c, s = math.cos(angle) * 2 * math.pi / pitch, math.sin(angle) * 2 * math.pi / pitch
    along, across = np.sin(c * x + s * y), np.sin(c * y - s * x)
    wave = {"striped": along, "dotted": along + across - 0.9, "checkered": along * across * 2}[kind]
    return inside(-wave, 0.6)


def _outline(shape: str) -> np.ndarray:
    """The corners of a shape around the origin, with radius about 1, [n, 2]."""
    corners = {"circle": 36, "ring": 36, "square": 4, "triangle": 3}.get(shape)
    if corners:
        t = np.arange(corners) * (2 * np.pi / corners)
        t += np.pi / 4 if corners == 4 else 0
        return np.stack([np.cos(t), np.sin(t)], 1) * (1.15 if corners < 5 else 0.92)
    if shape == "star":
        t = np.arange(10) * (np.pi / 5)
        return np.stack([np.cos(t), np.sin(t)], 1) * np.where(np.arange(10) % 2, 0.48, 1.2)[:, None]
    w = 0.34
    return np.array(
        [(w, w), (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w), (-w, -1), (w, -1), (w, -w), (1, -w), (1, w)]
    )


def _draw(rng: Random, patient: Patient, size: int) -> np.ndarray:
    view = View(size, rng.normal(0, 0.08), rng.between(0.92, 1.08))
    x, y = view.x, view.y
    ground = GROUNDS[patient.ground] * (1 + 0.05 * field(rng, 5, size))
    if patient.ground_texture == "striped":
        stripes = _texture("striped", x, y, rng.between(0, np.pi), rng.between(0.1, 0.2))
        ground += 0.2 * stripes * (0.5 - ground)
    layer = Layer(size)
    for place in patient.places:
        radius = (0.14, 0.21)[patient.size] * rng.between(0.88, 1.12)
        turn = rng.normal(0, 0.25) - np.pi / 2
        c, s = math.cos(turn), math.sin(turn)
        centre = np.array(_CENTRES[place]) + rng.uniform(-0.05, 0.05, 2)
        outline = _outline(FINDINGS[patient.shape]) @ np.array([[c, s], [-s, c]]) * radius
        layer.polygon(view.place(centre + outline))
        if FINDINGS[patient.shape] == "ring":
            layer.polygon(view.place(centre + 0.55 * outline), 0)
    paint = COLOURS[patient.colour]
    if patient.texture != "plain":
        other = 0.3 if patient.colour == "yellow" else 0.9
        pattern = _texture(patient.texture, x, y, rng.between(0, np.pi), rng.between(0.09, 0.12))
        paint = paint + 0.65 * pattern * (other - paint)
    image = ground + layer.array() * (paint - ground)
    light = 1 + rng.normal(0, 0.15) * (x - 0.5) + rng.normal(0, 0.15) * (y - 0.5)
    return photograph(rng, image * light * rng.between(0.85, 1.1), rng.between(0.01, 0.025))
