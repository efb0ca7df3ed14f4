import colorsys
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from benchmark.config.augmentation import Augmentation
from benchmark.data.transforms import augment, uniform

EVERYTHING = Augmentation(
    flip=0.5, brightness=0.3, contrast=0.4, saturation=0.5, hue=0.1, jittered=0.8, grey=0.2, blur=0.5
)


def pictures(b, size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (b, 3, size, size), dtype=np.uint8))


def test_none_is_identity():
    x = pictures(3, 9)
    assert torch.equal(augment(x, 9, torch.arange(3), 0, Augmentation.none()), x.float() / 255)


@pytest.mark.parametrize("size", [5, 16, 23, 24, 31, 96])
def test_none_resizes_as_torch_does(size):
    x = pictures(2, 24)
    expected = F.interpolate(x.double() / 255, size, mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(augment(x, size, torch.arange(2), 0, Augmentation.none()), expected.float())


@pytest.mark.parametrize(("source", "size"), [(32, 32), (40, 32), (20, 32), (64, 17)])
def test_crop_and_mirror_agree_with_pillow(source, size):
    """Pillow resamples a fractional box with the same filter; in mode F it does not round."""
    options = Augmentation(crop_scale=(0.3, 0.9), crop_ratio=(0.7, 1.4), flip=0.5)
    x, seed = pictures(12, source), torch.arange(12) * 7919
    found = augment(x, size, seed, 3, options)
    u = uniform(seed, 3, 5).double()
    for i in range(12):
        area, ratio = 0.3 + u[i, 0] * 0.6, 0.7 + u[i, 1] * 0.7
        height, width = min(source, source * (area / ratio) ** 0.5), min(source, source * (area * ratio) ** 0.5)
        top, left = u[i, 2] * (source - height), u[i, 3] * (source - width)
        box = tuple(float(edge) for edge in (left, top, left + width, top + height))
        for channel in range(3):
            picture = Image.fromarray(x[i, channel].numpy().astype(np.float32))
            expected = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box)) / 255
            expected = expected[:, ::-1] if u[i, 4] < 0.5 else expected
            np.testing.assert_allclose(found[i, channel].numpy(), expected, atol=2e-4)
    assert 0 < (u[:, 4] < 0.5).sum() < 12


def test_colour_agrees_with_a_loop():
    options = Augmentation(
        crop_scale=(1.0, 1.0),
        crop_ratio=(1.0, 1.0),
        brightness=0.3,
        contrast=0.4,
        saturation=0.5,
        jittered=0.6,
        grey=0.3,
    )
    count = 24
    x, seed = pictures(count, 8), torch.arange(count)
    found = augment(x, 8, seed, 0, options).numpy()
    u = uniform(seed, 0, 10).double().numpy()
    jittered, greyed = u[:, 8] < 0.6, u[:, 9] < 0.3
    assert {(a, b) for a, b in zip(jittered.tolist(), greyed.tolist())} == {(a, b) for a in (0, 1) for b in (0, 1)}
    for i in range(count):
        value = x[i].double().numpy() / 255 * (0.7 + 0.6 * u[i, 5] if jittered[i] else 1)
        mean = value.mean()
        value = mean + (value - mean) * (0.6 + 0.8 * u[i, 6] if jittered[i] else 1)
        grey = 0.299 * value[0] + 0.587 * value[1] + 0.114 * value[2]
        value = grey + (value - grey) * (0 if greyed[i] else 0.5 + 1.0 * u[i, 7] if jittered[i] else 1)
        np.testing.assert_allclose(found[i], value.clip(0, 1), atol=1e-6)


def test_hue_turns_in_yiq():
    options = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), hue=0.2)
    x, seed = pictures(6, 8), torch.arange(6)
    x = 96 + x // 4  # so that nothing is clipped
    found = augment(x, 8, seed, 0, options).double().numpy()
    for i, u in enumerate(uniform(seed, 0, 11)[:, 10].double().tolist()):
        turn = 2 * np.pi * (0.4 * u - 0.2)
        for row in range(8):
            for column in range(8):
                before = colorsys.rgb_to_yiq(*(x[i, :, row, column].double() / 255).tolist())
                y, chroma = before[0], complex(before[1], before[2]) * np.exp(1j * turn)
                after = colorsys.yiq_to_rgb(y, chroma.real, chroma.imag)
                np.testing.assert_allclose(found[i, :, row, column], after, atol=5e-3)


def test_blur_is_a_gaussian():
    options = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), blur=0.5)
    x, seed = pictures(8, 112), torch.arange(8)
    found = augment(x, 112, seed, 0, options).numpy()
    u = uniform(seed, 0, 13).double().numpy()
    assert 0 < (u[:, 11] < 0.5).sum() < 8
    for i in range(8):
        expected = x[i].double().numpy() / 255
        if u[i, 11] < 0.5:
            sigma = (0.1 + 1.9 * u[i, 12]) / 2
            expected = gaussian_filter(expected, (0, sigma, sigma), mode="nearest", radius=3)
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    cuts=st.lists(st.integers(1, 16), max_size=6),
    source=st.sampled_from([7, 16, 33]),
    size=st.sampled_from([5, 16, 33]),
    k=st.integers(0, 5),
)
def test_result_is_the_same_to_the_bit_however_the_batch_is_divided(cuts, source, size, k):
    x, seed = pictures(17, source), torch.randint(-(2**62), 2**62, (17,), generator=torch.Generator().manual_seed(1))
    whole = augment(x, size, seed, k, EVERYTHING)
    edges = [0, *sorted({min(cut, 17) for cut in np.cumsum(cuts)}), 17]
    parts = [augment(x[a:b], size, seed[a:b], k, EVERYTHING) for a, b in pairwise(edges) if a < b]
    assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(17)
    assert torch.equal(augment(x[order], size, seed[order], k, EVERYTHING), whole[order])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    x, seed = pictures(130, 48), torch.arange(130)
    whole = augment(x.cuda(), 40, seed.cuda(), 1, EVERYTHING)
    for n in (1, 3, 32, 129):
        parts = [augment(a.cuda(), 40, s.cuda(), 1, EVERYTHING) for a, s in zip(x.split(n), seed.split(n))]
        assert torch.equal(torch.cat(parts), whole)
    torch.testing.assert_close(whole.cpu(), augment(x, 40, seed, 1, EVERYTHING), atol=1e-5, rtol=0)


def test_views_differ_by_k_and_by_seed_and_ignore_the_global_generator():
    x, seed = pictures(4, 16), torch.arange(4)
    one = augment(x, 16, seed, 1, EVERYTHING)
    torch.manual_seed(123)
    assert torch.equal(augment(x, 16, seed, 1, EVERYTHING), one)
    assert not torch.allclose(augment(x, 16, seed, 2, EVERYTHING), one)
    same = augment(x[:1].expand(4, -1, -1, -1), 16, seed, 1, EVERYTHING)
    assert all(not torch.allclose(same[i], same[j]) for i in range(4) for j in range(i))


def test_uniform_is_splitmix():
    """Against Python's integers, which neither wrap nor shift with the sign."""

    def mix(x):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    seeds = [0, 1, -1, 2**63 - 1, -(2**63), 123456789]
    found = uniform(torch.tensor(seeds), 7, 3)
    expected = [[(mix(mix(mix(s % 2**64) + 7) + c) >> 40) / 2**24 for c in range(3)] for s in seeds]
    assert found.double().tolist() == expected


def test_uniform_is_uniform_and_uncorrelated():
    n = 50_000
    u = torch.cat([uniform(torch.arange(n), k, 4) for k in range(3)], dim=1).double()
    assert ((u >= 0) & (u < 1)).all()
    assert (u.mean(0) - 0.5).abs().max() < 5 * (1 / 12 / n) ** 0.5
    assert (u.var(0) - 1 / 12).abs().max() < 0.002
    assert torch.corrcoef(u.T).fill_diagonal_(0).abs().max() < 5 / n**0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_scale": (0.9, 0.5)}, "0.9 is above 0.5"),
        ({"crop_scale": (0.5, 1.5)}, "less than or equal to 1"),
        ({"crop_scale": (0.0, 1.0)}, "greater than 0"),
        ({"flip": 1.5}, "less than or equal to 1"),
        ({"sharpness": 0.1}, "Extra inputs"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValidationError, match=message):
        Augmentation(**options)
