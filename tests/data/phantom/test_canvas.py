"""The drawing tools against plain loops."""

import numpy as np
from PIL import Image

from benchmark.data.phantom.canvas import Random, View, dots, field, photograph
from benchmark.data.phantom.sheet import contact_sheet


def test_a_view_places_points_where_it_sees_them() -> None:
    for mirror in (False, True):
        view = View(32, angle=0.4, scale=1.2, shift=(0.05, -0.1), mirror=mirror)
        for row, column in ((0, 0), (3, 20), (31, 9)):
            seen = view.place(np.array([view.x[row, column], view.y[row, column]]))
            np.testing.assert_allclose(seen, [(column + 0.5) / 32, (row + 0.5) / 32], atol=1e-6)


def test_dots_against_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    centres, radii = rng.uniform(-0.1, 1.1, (40, 2)), rng.uniform(0.03, 0.1, (40, 2))
    values, angles = rng.random(40), rng.random(40) * np.pi
    expected = np.zeros((24, 24))
    for (cx, cy), (a, b), value, angle in zip(centres * 24, radii * 24, values, angles):
        for row in range(24):
            for column in range(24):
                dx, dy = column + 0.5 - cx, row + 0.5 - cy
                u = (np.cos(angle) * dx + np.sin(angle) * dy) / a
                v = (np.cos(angle) * dy - np.sin(angle) * dx) / b
                cover = min(1, max(0, 0.5 - (np.hypot(u, v) - 1) * min(a, b)))
                expected[row, column] = max(expected[row, column], value * cover)
    np.testing.assert_allclose(dots(24, centres, radii, values, angles), expected, atol=1e-4)


def test_no_dots() -> None:
    assert not dots(8, np.zeros((0, 2)), np.zeros((0, 2))).any()
    assert not dots(8, np.array([[5.0, 5.0]]), np.array([[0.1, 0.1]])).any()


def test_noise_has_the_deviation_that_is_asked_for() -> None:
    flat = np.full((3, 256, 256), 0.5, dtype=np.float32)
    drawn = photograph(Random(1), flat, 0.05).astype(float) / 255
    assert drawn.shape == (256, 256, 3)
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [0.5, 0.05], rtol=0.02)
    assert abs(np.mean([field(Random(k), 6, 32).mean() for k in range(200)])) < 0.05


def test_contact_sheet(tmp_path) -> None:
    path = tmp_path / "sheet.png"
    contact_sheet(path, per_modality=3, size=32)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 3 * 32
        assert sheet.height > 6 * 32
