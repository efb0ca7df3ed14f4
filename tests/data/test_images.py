import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from benchmark.data import images
from benchmark.data.images import decode_image, encode_png, is_image_file, load_image
from benchmark.data.problems import BadRow
from tests.data.make import pixels


def saved(path, picture, **options):
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("top", [1023, 4095, 65535])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_scaled_by_the_range_that_occurs(tmp_path, top, suffix):
    ramp = np.linspace(7, top, 600).reshape(20, 30).round().astype(np.uint16)
    picture = decode_image(saved(tmp_path / f"x.{suffix}", Image.fromarray(ramp)))
    assert picture.mode == "RGB"
    assert picture.size == (30, 20)
    expected = np.round((ramp - 7.0) * 255 / (top - 7))
    np.testing.assert_array_equal(np.asarray(picture), np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bits(tmp_path, dtype):
    values = np.array([[-1000, 0], [1000, 3000]], dtype=dtype)
    picture = load_image(saved(tmp_path / "x.tiff", Image.fromarray(values)))
    assert np.asarray(picture).tolist() == [[0, 64], [128, 255]]


def test_not_a_number_is_black_and_infinite_is_white(tmp_path):
    values = np.array([[np.nan, 1, 3, np.inf, -np.inf]], dtype=np.float32)
    assert np.asarray(load_image(saved(tmp_path / "x.tiff", Image.fromarray(values)))).tolist() == [[0, 0, 255, 255, 0]]


@pytest.mark.parametrize("value", [0, 300, 65535])
def test_constant_sixteen_bits(tmp_path, value):
    constant = Image.fromarray(np.full((4, 4), value, dtype=np.uint16))
    assert np.asarray(load_image(saved(tmp_path / "x.png", constant))).max() == 0


def test_palette(tmp_path):
    picture = Image.fromarray(pixels(0)).quantize(16)
    expected = np.asarray(picture.convert("RGB"))
    for suffix in ("png", "gif", "bmp"):
        found = decode_image(saved(tmp_path / f"x.{suffix}", picture))
        np.testing.assert_array_equal(np.asarray(found), expected)


def test_transparent_parts_are_white(tmp_path):
    colour = pixels(0)
    alpha = np.full(colour.shape[:2], 255, dtype=np.uint8)
    alpha[:5] = 0
    alpha[5] = 51
    expected = np.where(alpha[..., None] == 255, colour, 255)
    expected[5] = np.round(colour[5] * 0.2 + 255 * 0.8)
    found = decode_image(saved(tmp_path / "x.png", Image.fromarray(np.dstack([colour, alpha]))))
    np.testing.assert_allclose(np.asarray(found, dtype=int), expected, atol=1)
    grey = Image.merge("LA", [Image.fromarray(colour[..., 0]), Image.fromarray(alpha)])
    found = decode_image(saved(tmp_path / "grey.png", grey))
    np.testing.assert_allclose(np.asarray(found, dtype=int)[..., 1], expected[..., 0], atol=1)


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_is_white(tmp_path, mode):
    if mode == "P":
        picture, transparent = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P"), 1
        picture.putpalette([10, 20, 30, 40, 50, 60])
    else:
        picture = Image.fromarray(np.array([[[10, 20, 30], [40, 50, 60]]], dtype=np.uint8)).convert(mode)
        transparent = picture.getpixel((1, 0))
    found = decode_image(saved(tmp_path / "x.png", picture, transparency=transparent))
    assert found.getpixel((0, 0)) == picture.convert("RGB").getpixel((0, 0))
    assert found.getpixel((1, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk(tmp_path, suffix):
    expected = pixels(1, 32, 32)
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    found = decode_image(saved(tmp_path / f"x.{suffix}", Image.fromarray(expected).convert("CMYK"), **options))
    np.testing.assert_allclose(np.asarray(found, dtype=int), expected, atol=6)


def test_grey_and_one_bit(tmp_path):
    grey = pixels(0, channels=0)
    assert load_image(saved(tmp_path / "x.png", Image.fromarray(grey))).mode == "L"
    found = decode_image(saved(tmp_path / "x.png", Image.fromarray(grey)))
    np.testing.assert_array_equal(np.asarray(found), np.repeat(grey[..., None], 3, axis=2))
    bits = decode_image(saved(tmp_path / "b.png", Image.fromarray(grey > 100)))
    np.testing.assert_array_equal(np.asarray(bits)[..., 0], (grey > 100) * 255)


def test_exif_orientation(tmp_path):
    picture = Image.fromarray(pixels(0, 24, 16))
    upright = np.asarray(picture)
    stored = {  # orientation -> how the upright picture lies in the file
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    for orientation, array in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path / f"{orientation}.png", Image.fromarray(np.ascontiguousarray(array)), exif=exif)
        np.testing.assert_array_equal(np.asarray(decode_image(path)), upright, err_msg=str(orientation))


@pytest.mark.parametrize("suffix", ["jpg", "tiff", "webp", "avif"])
def test_exif_orientation_of_other_formats(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(pixels(0, 24, 16))
    found = decode_image(saved(tmp_path / f"x.{suffix}", picture, exif=exif.tobytes()))
    expected = np.rot90(np.asarray(picture), -1)
    assert np.abs(np.asarray(found, dtype=int) - expected).mean() < 6


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_leaves_the_image_as_it_lies(tmp_path, exif):
    assert decode_image(saved(tmp_path / "x.jpg", Image.fromarray(pixels(0, 24, 16)), exif=exif)).size == (24, 16)


def texts(count, size, kind):
    info = PngImagePlugin.PngInfo()
    for i in range(count):
        if kind == "iTXt":
            info.add_itxt("XML:com.adobe.xmp", "x" * size, zip=True)
        else:
            info.add_text(f"history {i}", "x" * size, zip=kind == "zTXt")
    return {"pnginfo": info}


@pytest.mark.parametrize(
    "metadata",
    [
        lambda: texts(1, 2_000_000, "zTXt"),
        lambda: texts(1, 2_000_000, "iTXt"),
        lambda: texts(1, 2_000_000, "tEXt"),
        lambda: texts(70, 1_000_000, "zTXt"),
        lambda: {"icc_profile": bytes(2_000_000)},
    ],
    ids=["zTXt", "iTXt", "tEXt", "many", "iCCP"],
)
def test_metadata_of_any_size_in_png(tmp_path, metadata):
    """Pillow refuses them; the pixels, their transparency and orientation do not depend on them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    path = saved(tmp_path / "x.png", picture, transparency=1, exif=exif, **metadata())
    assert np.asarray(decode_image(path)).tolist() == [[[10, 20, 30]], [[255, 255, 255]]]
    with pytest.raises(BadRow, match="cannot be decoded"):
        decode_image(path.read_bytes()[:-30])


@pytest.mark.parametrize("bits", [1, 16])
def test_a_transparent_grey_of_one_and_sixteen_bits_is_white(bits):
    row, transparent = (b"\xa0", 0) if bits == 1 else (struct.pack(">3H", 700, 60000, 800), 60000)
    found = decode_image(png_of(3, 1, bits, zlib.compress(b"\0" + row), tRNS=struct.pack(">H", transparent)))
    assert np.asarray(found)[0, :, 0].tolist() == ([255, 255, 255] if bits == 1 else [0, 255, 255])


def test_a_suffix_that_lies(tmp_path):
    expected = pixels(0)
    for format, name in (("PNG", "x.jpg"), ("JPEG2000", "x.png"), ("WEBP", "x.dcm"), ("PPM", "x"), ("AVIF", "x.heic")):
        path = saved(
            tmp_path / name, Image.fromarray(expected), format=format, lossless=True, quality=100, subsampling="4:4:4"
        )
        np.testing.assert_allclose(np.asarray(decode_image(path), dtype=int), expected, atol=8, err_msg=format)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "it is HEIC, which is not read: convert it to PNG"),
        (b"\xff\x0a\xfa\x1f", "it is JPEG XL, which is not read"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "it is a pointer of Git LFS .* run 'git lfs pull'",
        ),
        (b"\n<!DOCTYPE html><html><title>404", "it is a web page or XML, and no image: download it again"),
        (b"\x1f\x8b\x08\0", "it is an archive: unpack it"),
        (b"%PDF-1.7", "it is PDF, which is not read"),
    ],
)
def test_what_is_read_as_an_image_by_mistake_is_named(content, message):
    with pytest.raises(BadRow, match=f"^cannot be decoded: {message}"):
        decode_image(content)


def test_files_without_suffix_are_listed_by_their_content(tmp_path):
    picture = Image.fromarray(pixels(0))
    for name in ("a.PNG", "a.jfif", "a.dcm", "IM0001", "1.2.840.1"):
        assert is_image_file(saved(tmp_path / name, picture, format="PNG")), name
    (tmp_path / "README").write_text("of this set")
    for name in ("README", "gone", "a.csv", ".", saved(tmp_path / "a.bak", picture, format="PNG").name):
        assert not is_image_file(tmp_path / name), name
    (tmp_path / "damaged").write_bytes((tmp_path / "IM0001").read_bytes()[:-40])
    assert is_image_file(tmp_path / "damaged")


def test_the_first_of_several_frames(tmp_path):
    frames = [Image.fromarray(pixels(i)).quantize(8) for i in range(3)]
    found = decode_image(saved(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(frames[0].convert("RGB")))


def test_bytes_are_read_like_files():
    expected = pixels(3)
    np.testing.assert_array_equal(np.asarray(decode_image(encode_png(expected))), expected)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tiff", "gif", "webp"])
@pytest.mark.parametrize("keep", [0.6, 0.1])
def test_truncated(tmp_path, suffix, keep):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"x.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(BadRow, match="cannot be decoded: "):
        decode_image(path)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", POSTSCRIPT])
def test_not_an_image(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(BadRow, match="cannot be decoded: no known image format"):
        decode_image(path)


def test_a_damaged_png_is_found(tmp_path):
    content = bytearray(encode_png(pixels(0, 64, 64)))
    content[len(content) // 2] ^= 255
    with pytest.raises(BadRow, match="cannot be decoded"):
        decode_image(bytes(content))


def png_of(width, height, bits, body, **chunks):
    """A grey PNG with chunks before its pixels, which may be fewer than it claims."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    extra = b"".join(chunk(kind.encode(), content) for kind, content in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (50_000, 50_000)])
def test_decompression_bomb(tmp_path, width, height):
    with pytest.raises(BadRow, match="pixels") as caught:
        decode_image(png_of(width, height, 8, zlib.compress(bytes(1000))))
    assert caught.value.reason == "image is too large"


def test_a_large_image_is_no_bomb(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 120)
    decode_image(encode_png(pixels(0, 12, 10)))
    with pytest.raises(BadRow, match=r"12 x 11 pixels, more than 120"):
        decode_image(encode_png(pixels(0, 12, 11)))


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(BadRow, match="is not a file"):
            decode_image(path)
    with pytest.raises(BadRow, match="cannot be decoded: No such file"):
        decode_image(tmp_path / "gone.png")
