"""Write the data that squares.yaml describes: images of coloured squares with texts, beside this file."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 60, 60), "green": (60, 180, 60), "blue": (60, 60, 200)}
PLACES = {"upper left": (2, 2), "upper right": (2, 18), "lower left": (18, 2), "lower right": (18, 18)}


def main() -> None:
    """Write 240 images of 120 patients to images/, and squares.csv."""
    folder = Path(__file__).parent
    (folder / "images").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    with (folder / "squares.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "report", "colour", "patient", "split"])
        for i in range(240):
            colour, place = list(COLOURS)[i % 3], list(PLACES)[rng.integers(4)]
            row, column = PLACES[place]
            pixels = np.full((32, 32, 3), 230.0)
            pixels[row : row + 12, column : column + 12] = COLOURS[colour]
            pixels += rng.normal(0, 15, pixels.shape)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{i}.png")
            split = "train" if i < 160 else "val" if i < 200 else "test"
            report = f"A {colour} square in the {place} corner."
            table.writerow([f"images/{i}.png", report, colour, f"p{i // 2}", split])


if __name__ == "__main__":
    main()
