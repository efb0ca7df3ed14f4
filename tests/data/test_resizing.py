"""The pixels that a model sees are those of its own library's preprocessing, whatever the shape of the picture."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from timm.data import create_transform
from transformers import CLIPImageProcessor, SiglipImageProcessor

from benchmark.common.errors import BenchError
from benchmark.data.prepared import prepare
from benchmark.data.resizing import DEFAULT, Resizing, resized
from benchmark.evaluation.hugging_face import processor_resizing
from tests.data.make import dataset, pairs, picture

SIZE = 64
SHAPES = [(301, 97), (97, 301), (50, 33), (33, 50), (64, 64), (224, 224), (640, 479), (1021, 767), (20, 15)]
"""Width and height: larger and smaller than what is made of them, and with odd numbers to cut."""


def agrees(theirs: Callable[[Image.Image], Any], resizing: Resizing, most: int, mean: float) -> None:
    """theirs: float [3, SIZE, SIZE] in 0..255. most: the largest difference of a pixel; mean: over an image's."""
    for shape in SHAPES:
        expected = np.round(np.asarray(theirs(picture(*shape))))
        difference = np.abs(resized(picture(*shape), SIZE, resizing) - expected)
        assert difference.max() <= most, shape
        assert difference.mean() <= mean, shape
        assert (difference <= 2).mean() > 0.999, shape


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_open_clip(mode: Any, interpolation: str) -> None:
    transform = image_transform(
        SIZE, False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode, interpolation=interpolation, fill_color=7
    )
    agrees(lambda x: transform(x) * 255, Resizing(mode, interpolation, fill=(7, 7, 7)), 1, 0.05)


@pytest.mark.parametrize("share", [1.0, 0.95, 0.875])
@pytest.mark.parametrize(("theirs", "ours"), [("center", "shortest"), ("squash", "squash"), ("border", "longest")])
def test_timm(theirs: str, ours: Any, share: float) -> None:
    mean = (0.2, 0.3, 0.4)
    transform = create_transform(
        (3, SIZE, SIZE), crop_pct=share, crop_mode=theirs, interpolation="bilinear", mean=mean, std=(1, 1, 1)
    )
    resizing = Resizing(ours, "bilinear", SIZE / math.floor(SIZE / share), fill=(51, 76, 102))
    agrees(lambda x: (transform(x) + torch.tensor(mean).view(3, 1, 1)) * 255, resizing, 1, 0.05)


PROCESSORS: list[tuple[Any, dict[str, Any]]] = [
    (CLIPImageProcessor, {"size": {"shortest_edge": 64}}),
    (CLIPImageProcessor, {"size": {"shortest_edge": 73}}),
    (CLIPImageProcessor, {"size": {"shortest_edge": 73}, "resample": Image.Resampling.BILINEAR}),
    (CLIPImageProcessor, {"size": {"shortest_edge": 50}}),
    (CLIPImageProcessor, {"size": {"height": 70, "width": 70}}),
    (CLIPImageProcessor, {"size": {"height": 64, "width": 64}, "do_center_crop": False}),
    (SiglipImageProcessor, {"size": {"height": 64, "width": 64}}),
    (SiglipImageProcessor, {"size": {"height": 64, "width": 64}, "resample": Image.Resampling.BILINEAR}),
]


@pytest.mark.parametrize(("kind", "options"), PROCESSORS)
def test_transformers(kind: Any, options: dict[str, Any]) -> None:
    """It resizes tensors and not pictures, which rounds otherwise."""
    crop = {"height": SIZE, "width": SIZE}
    processor = kind(do_normalize=False, **options, **({"crop_size": crop} if kind is CLIPImageProcessor else {}))
    resizing, notes = processor_resizing(processor.to_dict(), SIZE, "m")
    assert notes == []
    agrees(lambda x: processor(x, return_tensors="np")["pixel_values"][0] * 255, resizing, 5, 0.5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": {"shortest_edge": 64}}, "size {'shortest_edge': 64}"),
        ({"size": {"height": 64, "width": 32}}, "size {'height': 64, 'width': 32}"),
        ({"size": {"longest_edge": 64}}, "size {'longest_edge': 64}"),
        ({"size": {"height": 64, "width": 64}, "do_resize": False}, "do_resize False"),
        ({"size": {"height": 64, "width": 64}, "do_pad": True}, "do_pad True"),
        (
            {"size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 32}, "do_center_crop": True},
            "crop_size {'height': 64, 'width': 32}",
        ),
    ],
)
def test_what_is_not_square_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError) as raised:
        processor_resizing({"do_resize": True, "resample": 3} | settings, SIZE, "m")
    assert str(raised.value).startswith("m: its image processor has ")
    assert said in str(raised.value)


def test_squares_of_another_size_are_said() -> None:
    resizing, (line,) = processor_resizing({"resample": 3, "size": {"height": 80, "width": 80}}, SIZE, "m")
    assert resizing == Resizing("squash", odd="down")
    assert "makes 80 pixels a side" in line


def test_square() -> None:
    def theirs(image: Image.Image) -> Image.Image:
        side = max(SIZE, *image.size)
        whole = Image.new("RGB", (side, side), (1, 2, 3))
        whole.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return whole.resize((SIZE, SIZE), Image.Resampling.BICUBIC)

    agrees(lambda x: np.asarray(theirs(x)).transpose(2, 0, 1), Resizing("square", fill=(1, 2, 3)), 0, 0)


def test_a_grey_picture_is_like_a_coloured_one() -> None:
    for mode in ("shortest", "longest", "square", "squash"):
        grey = picture(50, 33).convert("L")
        resizing = Resizing(mode, fill=(1, 2, 3))  # type: ignore[arg-type]
        np.testing.assert_array_equal(resized(grey, 16, resizing), resized(grey.convert("RGB"), 16, resizing))


def test_what_is_prepared_one_way_is_not_taken_for_the_other(tmp_path: Any) -> None:
    found = dataset(tmp_path, pairs(tmp_path, 3, ["train"]))
    Image.fromarray(np.asarray(picture(40, 20))).save(tmp_path / "images" / "0.png")
    seen = [
        np.array(prepare(found, "train", 8, found.cache, resizing=resizing).images[0])
        for resizing in (DEFAULT, Resizing("squash"), Resizing("longest"), DEFAULT)
    ]
    assert (seen[0] == seen[3]).all()
    assert (seen[0] != seen[1]).any()
    assert (seen[1] != seen[2]).any()
    assert (seen[2][:, :2] == 0).all()
    assert (seen[2][:, -2:] == 0).all()
    assert seen[2][:, 2:-2].any()
