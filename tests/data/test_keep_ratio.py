"""Training images that keep their ratio, and crops anywhere in them: as torchvision's Resize and RandomCrop."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomCrop
from torchvision.transforms import functional as reference

from benchmark.common.errors import BenchError
from benchmark.config.augmentation import Augmentation
from benchmark.config.training import Training
from benchmark.data import prepared
from benchmark.data.dataset import Dataset
from benchmark.data.loader import PairLoader, PreparedPairs
from benchmark.data.prepared import Images, prepare
from benchmark.data.resizing import DEFAULT, framed, resized
from benchmark.data.transforms import augment, uniform
from tests.data.make import Words, dataset, pairs, picture

SIDE = 32
KEPT = DEFAULT.keeping_ratio()
SHAPES = [(50, 33), (33, 50), (64, 64), (61, 40), (40, 97), (57, 43)]
"""Width and height."""
CROP = Augmentation(crop=20, flip=0.5)
EVERYTHING = Augmentation(
    crop_scale=(0.1, 1.0), flip=0.5, brightness=0.3, contrast=0.4, saturation=0.5, hue=0.1, grey=0.2, blur=0.5
)
AUGMENTATIONS = {
    "crop": CROP,
    "crop and colour": EVERYTHING.model_copy(update={"crop": 24}),
    "share": EVERYTHING,
    "whole": Augmentation.none(),
}


@pytest.mark.parametrize("shape", [*SHAPES, (301, 97), (20, 15)])
def test_the_short_side_is_resized_as_torchvision_does(shape: tuple[int, int]) -> None:
    expected = np.asarray(reference.resize(picture(*shape), SIDE, InterpolationMode.BICUBIC))
    found = resized(picture(*shape), SIDE, KEPT)
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))
    assert min(found.shape[1:]) == SIDE


def test_a_very_long_side_is_cropped_to_its_middle() -> None:
    long = picture(400, 40)
    whole = np.asarray(reference.resize(long, SIDE, InterpolationMode.BICUBIC)).transpose(2, 0, 1)
    found = resized(long, SIDE, KEPT)
    assert whole.shape == (3, 32, 320)
    assert found.shape == (3, 32, 128)
    np.testing.assert_array_equal(found, whole[:, :, 96:224])


def kept_pictures() -> tuple[Tensor, Tensor]:
    images, sizes = framed([resized(picture(*shape), SIDE, KEPT) for shape in SHAPES])
    return torch.from_numpy(images), torch.from_numpy(sizes)


def corners(seed: Tensor, k: int, sizes: Tensor, side: int) -> Tensor:
    """Top and left of the crops, int64 [b, 2]."""
    return torch.floor(uniform(seed, k, 5)[:, 2:4].double() * (sizes - side + 1)).long()


def test_a_crop_is_torchvisions_at_the_same_offsets() -> None:
    image, sizes = kept_pictures()
    seed = torch.arange(len(SHAPES)) * 31
    for k in range(3):
        found = augment(image, 20, seed, k, CROP, sizes)
        mirrored = uniform(seed, k, 5)[:, 4] < 0.5
        for i, (top, left) in enumerate(corners(seed, k, sizes, 20).tolist()):
            whole = reference.resize(picture(*SHAPES[i]), SIDE, InterpolationMode.BICUBIC)
            expected = reference.pil_to_tensor(reference.crop(whole, top, left, 20, 20))
            expected = expected.flip(-1) if mirrored[i] else expected
            assert torch.equal((found[i] * 255).round().to(torch.uint8), expected)
            torch.testing.assert_close(found[i], expected.float() / 255, rtol=0, atol=1e-7)


def test_a_crop_of_another_size_is_resized() -> None:
    image, sizes = kept_pictures()
    seed = torch.arange(len(SHAPES))
    cut = augment(image, 24, seed, 1, Augmentation(crop=24), sizes)
    for size in (12, 40):
        expected = torch.nn.functional.interpolate(cut.double(), size, mode="bilinear", antialias=True)
        found = augment(image, size, seed, 1, Augmentation(crop=24), sizes)
        torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-6)


def test_crops_lie_anywhere_as_often_as_torchvisions() -> None:
    """A picture whose pixels are their own coordinates tells where a crop begins."""
    height, width, side, draws = 16, 30, 12, 4000
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    image = torch.from_numpy(np.stack([rows, columns, rows]).astype(np.uint8))
    # Padded as by a larger picture of the micro-batch.
    batch = torch.nn.functional.pad(image, (0, 7, 0, 9), value=255).expand(draws, -1, -1, -1)
    found = augment(
        batch, side, torch.arange(draws), 0, Augmentation(crop=side), torch.tensor([[height, width]] * draws)
    )
    starts = (found[:, :2, 0, 0] * 255).round().long()
    torch.manual_seed(0)
    theirs = torch.tensor([RandomCrop.get_params(image, (side, side))[:2] for _ in range(draws)])
    for axis, places in enumerate((height - side + 1, width - side + 1)):
        counts, expected = (torch.bincount(each[:, axis], minlength=places) for each in (starts, theirs))
        assert len(counts) == len(expected) == places
        assert stats.chisquare(counts.numpy()).pvalue > 0.001
        assert stats.chi2_contingency(torch.stack([counts, expected]).numpy()).pvalue > 0.001
    assert abs(np.corrcoef(starts.T.numpy())[0, 1]) < 0.05


@pytest.mark.parametrize("size", [20, 32])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_padding_is_never_seen(name: str, size: int) -> None:
    """Alone, among larger pictures, and whatever the padding holds: the same view to the bit."""
    image, sizes = kept_pictures()
    seed = torch.arange(len(SHAPES)) * 977
    together = augment(image, size, seed, 2, AUGMENTATIONS[name], sizes)
    noisy = torch.nn.functional.pad(image, (0, 5, 0, 11), value=0).clone()
    for i, (height, width) in enumerate(sizes.tolist()):
        alone = image[i : i + 1, :, :height, :width]
        view = augment(alone, size, seed[i : i + 1], 2, AUGMENTATIONS[name], sizes[i : i + 1])
        assert torch.equal(view[0], together[i])
        if AUGMENTATIONS[name].contrast == 0:
            noisy[i, :, height:] = 255
            noisy[i, :, :, width:] = 255
    assert torch.equal(augment(noisy, size, seed, 2, AUGMENTATIONS[name], sizes), together)


def test_shares_of_oblong_pictures_agree_with_pillow() -> None:
    options = Augmentation(crop_scale=(0.1, 1.0), crop_ratio=(0.75, 1.4))
    image, sizes = kept_pictures()
    image, sizes = image.repeat(4, 1, 1, 1), sizes.repeat(4, 1)
    seed = torch.arange(len(image)) * 7919
    found = augment(image, 24, seed, 0, options, sizes)
    u = uniform(seed, 0, 5).double().numpy()
    cut = 0
    for i, (tall, wide) in enumerate(sizes.tolist()):
        area, ratio = 0.1 + 0.9 * u[i, 0], 0.75 + 0.65 * u[i, 1]
        height, width = (tall * wide * area / ratio) ** 0.5, (tall * wide * area * ratio) ** 0.5
        if height > tall or width > wide:
            cut += 1
            # As torchvision does where no crop fits: the largest whose ratio is in the range.
            height, width = min(height, tall), min(width, wide)
            height, width = min(height, width / 0.75), min(width, height * 1.4)
            assert 0.75 - 1e-9 <= width / height <= 1.4 + 1e-9
        top, left = u[i, 2] * (tall - height), u[i, 3] * (wide - width)
        for channel in range(3):
            whole = Image.fromarray(image[i, channel, :tall, :wide].numpy().astype(np.float32))
            box = (left, top, left + width, top + height)
            expected = np.asarray(whole.resize((24, 24), Image.Resampling.BILINEAR, box)) / 255
            np.testing.assert_allclose(found[i, channel].numpy(), expected, atol=3e-4)
    assert 0 < cut < len(image)


def of_shapes(folder: Path, shapes: Sequence[tuple[int, int]] = SHAPES) -> Dataset:
    found: Dataset = dataset(folder, pairs(folder, len(shapes), ["train"]))
    for i, shape in enumerate(shapes):
        picture(*shape).save(folder / "images" / f"{i}.png")
    return found


@pytest.mark.parametrize("jpeg", [False, True])
def test_prepared_images_are_those_that_were_resized(
    tmp_path: Path, jpeg: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "LARGE", 1 if jpeg else 1 << 35)
    found = of_shapes(tmp_path)
    for _ in range(2):  # made, then read from the cache
        images = prepare(found, "train", SIDE, found.cache, resizing=KEPT).images
        assert isinstance(images, Images)
        assert images.jpeg == jpeg
        pixels, sizes = images.with_sizes(np.array([4, 0, 2]))
        assert sizes is not None
        for i, number in enumerate((4, 0, 2)):
            expected = resized(picture(*SHAPES[number]), SIDE, KEPT)
            height, width = sizes[i]
            assert expected.shape == (3, height, width)
            if jpeg:
                stored = BytesIO()
                Image.fromarray(expected.transpose(1, 2, 0)).save(stored, "JPEG", quality=95, subsampling=0)
                expected = np.asarray(Image.open(stored)).transpose(2, 0, 1)
            np.testing.assert_array_equal(pixels[i, :, :height, :width], expected)
            assert not pixels[i, :, height:].any()
            assert not pixels[i, :, :, width:].any()
        np.testing.assert_array_equal(images[[4, 0, 2]], pixels)
    squares = prepare(found, "train", SIDE, found.cache).images
    assert squares[0].shape == (3, SIDE, SIDE)


def loader(folder: Path, *sets: Dataset, augmentation: Augmentation = CROP, image_size: int = 20) -> PairLoader:
    each = [
        PreparedPairs(prepare(one, "train", SIDE, folder / "cache", resizing=KEPT), Words(), folder / "cache")
        for one in sets
    ]
    return PairLoader(each, Words.pad_id, image_size, augmentation, seed=3)


def test_views_do_not_depend_on_the_micro_batch(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    mixed = loader(tmp_path, of_shapes(tmp_path / "one"), of_shapes(tmp_path / "two", [(90, 30), (31, 66), (48, 48)]))
    batch = mixed.batch(0, 9)
    assert batch.size is not None
    assert batch.image.shape[2:] == (77, 96)
    stronger = AUGMENTATIONS["share"]
    frames = set()
    for i in range(9):
        one = mixed.batch(i, 1)
        frames.add(tuple(one.image.shape[2:]))
        for k, augmentation in ((0, None), (1, None), (1, stronger)):
            expected = batch.view(k, augmentation)[i]
            assert torch.equal(one.view(k, augmentation)[0], expected)
            assert torch.equal(batch.rows([i, i]).view(k, augmentation)[1], expected)
            assert torch.equal(batch.to("cpu").view(k, augmentation)[i], expected)
    assert len(frames) > 3


def test_a_crop_larger_than_the_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        BenchError, match=r"augmentation.crop is 33, more than the 32 pixels .* set training.resolution"
    ):
        loader(tmp_path, of_shapes(tmp_path), augmentation=Augmentation(crop=33))
    fields: dict[str, Any] = {"steps": 1, "resolution": 32, "augmentation": {"crop": 33}}
    with pytest.raises(ValidationError, match=r"augmentation\.crop is 33, more than the 32 pixels of"):
        Training(**fields)
