"""JPEGs that are decoded at a reduced scale look as if they had been decoded whole and resized by Pillow."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from sklearn.datasets import load_sample_image

from benchmark.data import images, resizing
from benchmark.data.check import check
from benchmark.data.images import check_image, encode_png, load_image, load_resized
from benchmark.data.prepared import prepare
from benchmark.data.problems import BadRow
from benchmark.data.resizing import DEFAULT, Draft, Resizing, resized
from tests.data.make import dataset, pairs, picture, pixels


def smooth(width: int, height: int) -> Image.Image:
    return Image.fromarray(pixels(width, width, height))


def photograph(width: int, height: int) -> Image.Image:
    """A part of a photograph of a temple, with fine detail everywhere."""
    return Image.fromarray(load_sample_image("china.jpg")).crop((0, 0, width, height))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What libjpeg was told: by how much to reduce each picture."""
    told = []
    draft = JpegImagePlugin.JpegImageFile.draft

    def noted(self, mode, size):
        found = draft(self, mode, size)
        told.append(self.decoderconfig[0])
        return found

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", noted)
    return told


def whole(content: bytes, size: int, how: Resizing) -> np.ndarray:
    """All pixels decoded, and resized by Pillow alone."""
    return resized(load_image(content), size, how).astype(int)


RESIZINGS = [
    DEFAULT,
    Resizing("squash", "bilinear"),
    Resizing("longest", fill=(3, 4, 5)),
    Resizing("keep_ratio"),
    Resizing("shortest", "lanczos", 0.875, odd="down"),
]
SIZES = [(640, 427), (427, 427), (401, 399), (333, 427), (639, 161)]
"""Width and height, most of which no scale divides."""


@pytest.mark.parametrize("how", RESIZINGS)
@pytest.mark.parametrize(("made", "mean", "most"), [(smooth, 0.35, 3), (photograph, 1.5, 15), (noise, 3.2, 18)])
def test_the_pixels_are_nearly_those_of_the_whole(how, made, mean, most, scales) -> None:
    """The bounds are a little above what was measured; bicubic and bilinear differ by 0.4, 2.9 and 3.8 on average."""
    for shape in SIZES:
        content = jpeg(made(*shape))
        for size in (28, 40, 64):
            difference = np.abs(load_resized(content, size, how) - whole(content, size, how))
            assert difference.mean() < mean, (shape, size)
            assert difference.max() <= most, (shape, size)
    assert {2, 4} <= {*scales}


@pytest.mark.parametrize("how", RESIZINGS)
def test_a_jpeg_that_is_not_reduced_differs_by_rounding_alone(how, scales) -> None:
    for shape in [(100, 70), (33, 50), (64, 64), (20, 15)]:
        content = jpeg(picture(*shape))
        difference = np.abs(load_resized(content, 64, how) - whole(content, 64, how))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.02
    assert {*scales} == {1}
    content = jpeg(photograph(400, 64))
    np.testing.assert_array_equal(load_resized(content, 64), whole(content, 64, DEFAULT))


@pytest.mark.parametrize(
    ("side", "size", "scale"),
    [(127, 32, 1), (128, 32, 2), (129, 32, 2), (255, 32, 2), (256, 32, 4), (511, 32, 4), (512, 32, 8), (900, 32, 8)],
)
def test_twice_the_pixels_remain(side, size, scale, scales) -> None:
    assert load_resized(jpeg(picture(side, side)), size).shape == (3, size, size)
    assert scales == [scale]
    assert DEFAULT.reduction(side, side, size) == DEFAULT.reduction(3 * side, side, size) == scale
    assert DEFAULT.reduction(side, 3 * side, size) == scale
    # The side that is reduced most, and what is cropped afterwards, count.
    assert Resizing("longest").reduction(side, side // 2, size) == scale
    assert Resizing("squash").reduction(2 * side, side, size) == scale
    assert Resizing(crop=0.5).reduction(2 * side, 2 * side, size) == scale
    assert (
        Resizing("square").reduction(side, side, size) == Resizing(interpolation="nearest").reduction(900, 900, 1) == 1
    )


@pytest.mark.parametrize("shape", [(320, 240), (321, 243)])
def test_orientation(shape, scales) -> None:
    upright = smooth(*shape)
    expected = whole(jpeg(upright), 40, Resizing("keep_ratio"))
    for orientation in range(1, 9):
        back = {**images.UPRIGHT, 6: images.UPRIGHT[8], 8: images.UPRIGHT[6]}.get(orientation)
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = jpeg(upright.transpose(back) if back is not None else upright, exif=exif)
        found = load_resized(content, 40, Resizing("keep_ratio"))
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 1, orientation
    assert scales == ([2] * 8 if shape == (320, 240) else [2] + [1] * 7)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_modes_and_progressive_files(mode, progressive, scales) -> None:
    content = jpeg(smooth(301, 299).convert(mode), progressive=progressive)
    found = load_resized(content, 32)
    assert found.shape == (3, 32, 32)
    assert np.abs(found - whole(content, 32, DEFAULT)).mean() < 1
    assert scales == [4]
    assert mode != "L" or (found[0] == found[1]).all()


def test_other_formats_keep_their_pixels(scales) -> None:
    content = encode_png(np.asarray(photograph(300, 200)))
    np.testing.assert_array_equal(load_resized(content, 20), whole(content, 20, DEFAULT))
    assert scales == []


def test_both_ways_to_resize_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a column that lies partly beyond the picture, both take the same part."""
    for mode in ("RGB", "L"):
        for width, height in ((301, 250), (298, 403), (304, 304)):
            image = photograph(304, 404).convert(mode).crop((0, 0, -(-width // 4), -(-height // 4)))
            draft = Draft((width, height), 4)
            for how in RESIZINGS:
                found = resized(image, 30, how, draft).astype(int)
                monkeypatch.setattr(resizing, "FAST", {})
                expected = resized(image, 30, how, draft)
                monkeypatch.undo()
                assert np.abs(found - expected).max() <= 1
                assert np.abs(found - expected).mean() < 0.02


def test_pixels_that_pillow_does_not_hand_over_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    content = jpeg(picture(300, 200))
    expected = load_resized(content, 40)
    monkeypatch.setattr(resizing.pa, "array", lambda _: (_ for _ in ()).throw(ValueError))
    np.testing.assert_array_equal(load_resized(content, 40), expected)


def test_a_very_long_picture_is_cropped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizing, "_resized_by_torch", None)
    assert load_resized(jpeg(picture(3000, 20)), 32).shape == (3, 32, 32)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("keep", [0.99, 0.6, 0.1])
def test_a_truncated_file_is_named(tmp_path: Path, keep, progressive) -> None:
    rows = pairs(tmp_path, 3, ["train"])
    for number, row in enumerate(rows):
        row["image"] = f"images/{number}.jpg"
        (tmp_path / row["image"]).write_bytes(jpeg(noise(400, 300), progressive=progressive))
    path = tmp_path / "images" / "1.jpg"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    for use in (check_image, lambda source: load_resized(source, 32), load_image):
        with pytest.raises(BadRow, match=r"cannot be decoded: .*truncated"):
            use(path)
    for use in (check, lambda found: prepare(found, "train", 32, found.cache)):
        with pytest.raises(Exception, match=r"rows\.jsonl.*: image 'images/1\.jpg' cannot be decoded: .*truncated"):
            use(dataset(tmp_path, rows))


def test_a_reduced_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 300 * 200 - 1)
    for use in (check_image, lambda source: load_resized(source, 8)):
        with pytest.raises(BadRow, match=r"300 x 200 pixels, more than 59,999"):
            use(jpeg(picture(300, 200)))


def test_tiny_pictures_are_checked() -> None:
    for shape in ((1, 1), (5, 300), (300, 5)):
        check_image(jpeg(picture(*shape)))
