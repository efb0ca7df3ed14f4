import signal
import struct
import sys
from io import BytesIO

import datasets
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
)

from benchmark.common.errors import BenchError
from benchmark.data import decoding
from benchmark.data.images import encode_png, load_image
from benchmark.data.prepared import prepare
from benchmark.data.problems import BadRow
from benchmark.data.resizing import resized
from benchmark.data.streamed import Stream, StreamedPairs
from tests.data.make import PAIRS, SHARDS, Words, opened, pixels, shard, write_jsonl
from tests.data.published.layouts import dicom


def eight_bit(values):
    values = values.astype(float)
    return np.round((values - values.min()) * 255 / (values.max() - values.min()))


def test_twelve_bits(tmp_path):
    stored = dicom(tmp_path / "a.dcm")
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.dcm")), eight_bit(stored))
    np.testing.assert_array_equal(np.asarray(load_image((tmp_path / "a.dcm").read_bytes())), eight_bit(stored))


def test_monochrome1_is_inverted(tmp_path):
    stored = dicom(tmp_path / "a.dicom", photometric="MONOCHROME1")
    np.testing.assert_array_equal(
        np.asarray(load_image(tmp_path / "a.dicom")), eight_bit(stored.max() - stored.astype(int))
    )


def test_the_window_of_the_header(tmp_path):
    """DICOM PS3.3, C.11.2.1.2.1, over rescaled values."""
    stored = dicom(tmp_path / "a.dcm", WindowCenter=1000, WindowWidth=801, RescaleSlope=0.5, RescaleIntercept=10)
    x, c, w = stored * 0.5 + 10, 1000, 801
    y = np.clip((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1)
    found = np.asarray(load_image(tmp_path / "a.dcm"))
    assert np.abs(found - 255 * y).max() <= 0.5 + 1e-6


def written(path, values, photometric="MONOCHROME2", bits=0, data=None, **attributes):
    """A file with these stored values and attributes."""
    data = data or Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.Rows, data.Columns, data.SamplesPerPixel = *values.shape[:2], 3 if values.ndim == 3 else 1
    data.BitsAllocated = 8 * values.itemsize
    data.PhotometricInterpretation = photometric
    if values.dtype.kind == "f":
        setattr(data, {4: "FloatPixelData", 8: "DoubleFloatPixelData"}[values.itemsize], values.tobytes())
    else:
        data.BitsStored = bits or data.BitsAllocated
        data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(values.dtype.kind == "i")
        data.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    if values.ndim == 3:
        data.PlanarConfiguration = 0
    for name, value in attributes.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def shown(*arguments, **attributes):
    """The pixels that a file with these stored values and attributes is shown as."""
    return np.asarray(load_image(written(*arguments, **attributes))).tolist()


def item(**attributes):
    data = Dataset()
    for name, value in attributes.items():
        setattr(data, name, value)
    return data


def words(values):
    return np.array(values, dtype="<u2").tobytes()


LEVELS = np.array([[0, 100, 200, 300, 400]], dtype=np.int16)


@pytest.mark.parametrize(
    ("window", "shares"),
    [
        ({"WindowCenter": 200.5, "WindowWidth": 201}, [0, 0, 0.5, 1, 1]),
        ({"WindowCenter": 200, "WindowWidth": 200, "VOILUTFunction": "LINEAR_EXACT"}, [0, 0, 0.5, 1, 1]),
        ({"WindowCenter": 200, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"}, [0.3, 0.4, 0.5, 0.6, 0.7]),
        (
            {"WindowCenter": 200, "WindowWidth": 200, "VOILUTFunction": "SIGMOID"},
            [1 / (1 + np.exp(-4 * x)) for x in (-1, -0.5, 0, 0.5, 1)],
        ),
        ({"WindowCenter": [200.5, 0], "WindowWidth": [201, 5]}, [0, 0, 0.5, 1, 1]),  # the first of two
        ({"WindowCenter": 200, "WindowWidth": 1}, [0, 0, 1, 1, 1]),
        ({"WindowCenter": 200, "WindowWidth": 0}, [0, 0.25, 0.5, 0.75, 1]),  # shows nothing: as without
        ({"WindowCenter": None, "WindowWidth": None}, [0, 0.25, 0.5, 0.75, 1]),
        ({"WindowCenter": 200}, [0, 0.25, 0.5, 0.75, 1]),
        ({"WindowCenter": 100, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT", "RescaleSlope": 0.5}, None),
    ],
)
def test_windows_end_in_black_and_white_and_are_not_stretched_again(tmp_path, window, shares):
    """DICOM PS3.3, C.11.2.1.2.1 and C.11.2.1.3."""
    shares = shares or [0.25, 0.375, 0.5, 0.625, 0.75]
    (found,) = shown(tmp_path / "a.dcm", LEVELS, **window)
    assert np.abs(found - 255 * np.array(shares)).max() <= 0.5 + 1e-9
    (inverse,) = shown(tmp_path / "a.dcm", LEVELS, "MONOCHROME1", **window)
    assert np.add(found, inverse).tolist() == [255] * 5


def test_inversion_is_said_once_or_twice_and_done_once(tmp_path):
    byte = np.array([[0, 10, 255]], dtype=np.uint8)
    for photometric, shape in (("MONOCHROME1", None), ("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "INVERSE")):
        assert shown(tmp_path / "a.dcm", byte, photometric, PresentationLUTShape=shape) == [[255, 245, 0]]
    assert shown(tmp_path / "a.dcm", byte, PresentationLUTShape="IDENTITY") == [[0, 10, 255]]


def test_without_a_window_eight_bits_are_shown_as_they_are_and_more_from_least_to_most(tmp_path):
    assert shown(tmp_path / "a.dcm", np.array([[7, 80]], dtype=np.uint8)) == [[7, 80]]
    assert shown(tmp_path / "a.dcm", np.array([[0, 63]], dtype=np.uint8), bits=6) == [[0, 255]]
    assert shown(tmp_path / "a.dcm", np.array([[-128, 127]], dtype=np.int8), RescaleSlope=-1) == [[255, 0]]
    assert shown(tmp_path / "a.dcm", np.array([[700, 750, 800]], dtype=np.uint16), bits=12) == [[0, 128, 255]]
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        assert shown(tmp_path / "a.dcm", np.full((2, 2), 700, dtype=np.uint16), photometric) == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("values", "bits", "padding"),
    [
        (np.array([[-2000, 0, 50, 100]], dtype=np.int16), 16, {"PixelPaddingValue": -2000}),
        (np.array([[4095, 0, 50, 100]], dtype=np.uint16), 12, {"PixelPaddingValue": 4095}),
        (np.array([[9, 10, 60, 110]], dtype=np.uint16), 16, {"PixelPaddingValue": 9, "PixelPaddingRangeLimit": 3}),
        (np.array([[5, 10, 60, 110]], dtype=np.uint16), 16, {"PixelPaddingValue": 3, "PixelPaddingRangeLimit": 9}),
        # beyond the bits stored, as some CT scanners write it
        (np.array([[63536, 0, 50, 100]], dtype=np.uint16), 12, {"PixelPaddingValue": 63536}),
        (np.array([[-7, 1, 1.5, 2]], dtype=np.float32), 0, {"FloatPixelPaddingValue": -7.0}),
        (
            np.array([[-7, 1, 1.5, 2]]),
            0,
            {"DoubleFloatPixelPaddingValue": -9.0, "DoubleFloatPixelPaddingRangeLimit": 0},
        ),
        (np.array([[np.nan, 1, 1.5, 2]], dtype=np.float32), 0, {}),
    ],
)
def test_padding_is_black_and_does_not_count(tmp_path, values, bits, padding):
    assert shown(tmp_path / "a.dcm", values, bits=bits, **padding) == [[0, 0, 128, 255]]
    assert shown(tmp_path / "a.dcm", values, "MONOCHROME1", bits=bits, **padding) == [[0, 255, 127, 0]]


def test_padding_written_with_the_other_sign(tmp_path):
    data = Dataset()
    data.add_new("PixelPaddingValue", "US", 63536)
    values = np.array([[-2000, 0, 50, 100]], dtype=np.int16)
    window = {"WindowCenter": 50, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"}
    assert shown(tmp_path / "a.dcm", values, "MONOCHROME1", data=data, **window) == [[0, 255, 127, 0]]
    assert shown(tmp_path / "a.dcm", values[:, :1].repeat(4, 1), "MONOCHROME1", data=data) == [[0, 0, 0, 0]]


def test_lookup_tables_before_and_after_the_rescale(tmp_path):
    byte = np.array([[0, 3, 4, 5, 200]], dtype=np.uint8)
    modality = item(LUTDescriptor=[3, 3, 8], ModalityLUTType="US", LUTData=words([0, 51, 255]))
    assert shown(tmp_path / "a.dcm", byte, ModalityLUTSequence=[modality]) == [[0, 0, 51, 255, 255]]
    voi = item(LUTDescriptor=[3, 3, 12], LUTData=words([0, 819, 4095]))
    window = {"WindowCenter": 1, "WindowWidth": 1}
    assert shown(tmp_path / "a.dcm", byte, VOILUTSequence=[voi], **window) == [[0, 0, 51, 255, 255]]
    packed = item(LUTDescriptor=[4, 0xFFFF, 8], LUTData=bytes([0, 51, 102, 255]))
    found = shown(tmp_path / "a.dcm", byte, VOILUTSequence=[packed], RescaleSlope=1, RescaleIntercept=-4)
    assert found == [[0, 0, 51, 102, 255]]


def test_the_window_of_the_first_frame(tmp_path):
    """In enhanced files it is in a functional group, of all frames or of each."""

    def group(centre, slope):
        return item(
            FrameVOILUTSequence=[item(WindowCenter=centre, WindowWidth=400, VOILUTFunction="LINEAR_EXACT")],
            PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=0)],
        )

    whole = {"SharedFunctionalGroupsSequence": [group(200, 1)]}
    assert shown(tmp_path / "a.dcm", LEVELS, **whole) == [[0, 64, 128, 191, 255]]
    each = whole | {"PerFrameFunctionalGroupsSequence": [group(400, 2), group(9, 9)], "NumberOfFrames": 2}
    two = np.concatenate([LEVELS, LEVELS * 0])
    assert shown(tmp_path / "a.dcm", two, Rows=1, **each) == [[0, 0, 128, 255, 255]]


COLOURS = ("Red", "Green", "Blue")


def palette(tables, first=0, bits=16, prefix="", count=None):
    return {
        f"{colour}PaletteColorLookupTableDescriptor": [count or len(table), first, bits]
        for colour, table in zip(COLOURS, tables)
    } | {
        f"{prefix}{colour}PaletteColorLookupTableData": words(table) if bits == 16 else bytes(table)
        for colour, table in zip(COLOURS, tables)
    }


THREE = [[10, 255, 0, 9], [20, 0, 0, 9], [30, 0, 255, 9]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_a_palette(tmp_path, dtype):
    """Stored values are indices from the first one mapped on; values outside have the first or the last colour."""
    first = -3 if dtype is np.int16 else 2
    values = np.array([[first - 2, first, first + 1, first + 2, 90]], dtype=dtype)
    expected = [[[10, 20, 30], [10, 20, 30], [255, 0, 0], [0, 0, 255], [9, 9, 9]]]
    for tables in (
        palette(np.multiply(THREE, 257), first),
        palette(THREE, first),  # says 16 bits, fills 8
        palette(THREE, first, bits=8),
        palette([[0, 4, *table] for table in THREE], first, bits=8, prefix="Segmented", count=4),
    ):
        assert shown(tmp_path / "a.dcm", values, "PALETTE COLOR", **tables) == expected


def test_a_palette_of_bytes_for_indices_beyond_them(tmp_path):
    values = np.array([[0, 299, 256]], dtype=np.uint16)
    table = [i % 251 for i in range(300)]
    assert shown(tmp_path / "a.dcm", values, "PALETTE COLOR", **palette([table] * 3, bits=8)) == [
        [[0] * 3, [48] * 3, [5] * 3]
    ]


@pytest.mark.parametrize("bits", [8, 16])
def test_segments(tmp_path, bits):
    """DICOM PS3.3, C.7.9.2: as they are, in a line to a value, and the first two once more."""
    scale = 1 if bits == 8 else 257
    place = [0, 0, 0, 0] if bits == 8 else [0, 0]
    table = [0, 2, 0, 8 * scale, 1, 4, 16 * scale, 2, 2, *place, 0, 1, 100 * scale]
    tables = palette([table] * 3, bits=bits, prefix="Segmented", count=13)
    found = shown(tmp_path / "a.dcm", np.arange(13, dtype=np.uint8)[None], "PALETTE COLOR", **tables)
    assert [red for red, _, _ in found[0]] == [0, 8, 10, 12, 14, 16, 0, 8, 10, 12, 14, 16, 100]


def test_bad_palettes(tmp_path):
    index = np.zeros((2, 2), dtype=np.uint8)
    for table, reason in (
        ([1, 4, 9], "a segment of type 1 is out of place"),
        ([0, 1, 5, 9, 9, 9], "a segment of type 9 is out of place"),
        ([0, 1, 5, 2, 2, 0, 0], "a segment of type 2 is out of place"),  # would go round in circles
        ([0, 1, 5], "a segmented palette of 1 entries; expected 4"),
    ):
        path = written(tmp_path / "a.dcm", index, "PALETTE COLOR", **palette([table] * 3, prefix="Segmented", count=4))
        with pytest.raises(BadRow, match=reason):
            load_image(path)
    path = written(tmp_path / "a.dcm", index, "PALETTE COLOR", **palette([[1]] * 3, count=4))
    with pytest.raises(BadRow, match="a lookup table of 1 entries; expected 4"):
        load_image(path)
    with pytest.raises(BadRow, match="without the palette's table of red"):
        load_image(written(tmp_path / "a.dcm", index, "PALETTE COLOR"))


def test_colours_of_any_depth_are_scaled_by_their_bits(tmp_path):
    colour = np.array([[[40000, 256, 0], [65535, 65535, 257]]], dtype=np.uint16)
    assert shown(tmp_path / "a.dcm", colour, "RGB") == [[[156, 1, 0], [255, 255, 1]]]
    assert shown(tmp_path / "a.dcm", colour // 16, "RGB", bits=12) == [[[156, 1, 0], [255, 255, 1]]]
    assert shown(tmp_path / "a.dcm", (colour // 256).astype(np.uint8), "RGB") == [[[156, 1, 0], [255, 255, 1]]]
    planes = colour.transpose(2, 0, 1).copy()
    data = {"Rows": 1, "Columns": 2, "PlanarConfiguration": 1}
    assert shown(tmp_path / "a.dcm", planes, "RGB", **data) == [[[156, 1, 0], [255, 255, 1]]]
    for photometric, reason in (
        ("YBR_FULL", "YBR_FULL of 16 bits, which is not read"),
        ("HSV", "photometric interpretation 'HSV', which is not read"),
        ("MONOCHROME2", "MONOCHROME2 with 3 samples per pixel; expected 1"),
    ):
        with pytest.raises(BadRow, match=reason):
            load_image(written(tmp_path / "a.dcm", colour, photometric))


@pytest.mark.parametrize("name", ["IM0001", "1.2.840.113619.2", "wrong.png", "wrong.jpg", "right.dcm", "right.DICOM"])
def test_dicom_is_known_by_its_content(tmp_path, name):
    stored = dicom(tmp_path / name)
    expected = eight_bit(stored)
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / name)), expected)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[132:])  # no preamble
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / name)), expected)
    data = dcmread(BytesIO(content))
    for implicit, little in ((False, True), (True, True), (False, False)):  # nor a header that says the syntax
        bare = Dataset(data)
        bare.PixelData = stored.astype("<u2" if little else ">u2").tobytes()
        bare.save_as(tmp_path / name, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
        np.testing.assert_array_equal(np.asarray(load_image(tmp_path / name)), expected)
    assert load_image(png(tmp_path / "really-png.dcm")).size == (12, 10)


def png(path):
    path.write_bytes(encode_png(pixels(0)))
    return path


def test_dicom_without_pixels(tmp_path):
    data = dcmread(written(tmp_path / "a.dcm", LEVELS))
    del data.PixelData
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(BadRow, match=r"cannot be decoded: DICOM without pixels \(Basic Text SR Storage\)"):
        load_image(tmp_path / "a.dcm")


def test_every_way_into_the_harness_shows_it_alike(tmp_path):
    """Beside a table, in a folder of classes, in a saved table of the hub, in shards, and streamed from them."""
    paths = [tmp_path / f"class/{name}" for name in ("IM1", "1.2.840.2", "c.dcm")]
    paths[0].parent.mkdir()
    grey = np.arange(100, dtype=np.uint16).reshape(10, 10) * 40
    written(paths[0], grey, "MONOCHROME1", PixelPaddingValue=0)
    written(paths[1], (grey // 40).astype(np.uint8), "PALETTE COLOR", **palette([range(0, 200, 2)] * 3, bits=8))
    written(paths[2], np.stack([grey * 16] * 3, axis=-1), "RGB")
    (tmp_path / "class/DICOMDIR").write_bytes(paths[0].read_bytes())
    expected = [resized(load_image(path), 8) for path in paths]
    assert len({image.tobytes() for image in expected}) == 3
    rows = [{"id": str(i), "image": f"class/{path.name}", "text": "a"} for i, path in enumerate(paths)]
    write_jsonl(tmp_path / "rows.jsonl", [row | {"split": "train", "patient": row["id"]} for row in rows])
    shard(
        tmp_path / "a.tar",
        [each for i, path in enumerate(paths) for each in ((f"{i}.dcm", path.read_bytes()), (f"{i}.txt", b"a"))],
    )
    table = {"image": [{"bytes": path.read_bytes(), "path": None} for path in paths], "text": ["a"] * 3}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_dict(table, features).save_to_disk(str(tmp_path / "saved"))
    hub = {
        "kind": "hub",
        "path": "saved",
        "splits_of": {"train": "train"},
        "columns": {"image": "image", "text": "text"},
    }
    shards = SHARDS | {"shards": {"train": ["a.tar"]}}
    for source, card in (
        ({"kind": "manifest", "file": "rows.jsonl", "columns": PAIRS}, {}),
        ({"kind": "image_folder", "root": ".", "split": {"train": 1.0, "seed": 0}}, {"classes": ["class", "other"]}),
        (hub, {}),
        (shards, {}),
    ):
        found = opened(tmp_path, source, **card)
        images = prepare(found, "train", 8, tmp_path / "cache").images
        assert sorted(map(bytes, images)) == sorted(map(bytes, expected)), source
    stream = opened(tmp_path, shards | {"stream": True})
    pairs = StreamedPairs(Stream(stream.card, "train", stream.cache), 8, Words(), "error")
    np.testing.assert_array_equal(pairs.take(np.arange(3), np.zeros(3, int)).images, np.stack(expected))


def test_bad_dicom(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"no")
    with pytest.raises(BadRow, match=r"cannot be decoded"):
        load_image(tmp_path / "a.dcm")
    dicom(tmp_path / "b.dcm")
    (tmp_path / "b.dcm").write_bytes((tmp_path / "b.dcm").read_bytes()[:-100])
    with pytest.raises(BadRow, match=r"cannot be decoded"):
        load_image(tmp_path / "b.dcm")
    dicom(tmp_path / "c.dcm", Rows=60000, Columns=60000)
    with pytest.raises(BadRow, match=r"60000 x 60000 pixels.* refused as a decompression bomb"):
        load_image(tmp_path / "c.dcm")


def test_without_pydicom(tmp_path, monkeypatch):
    dicom(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(BenchError, match=r"^DICOM images need pydicom: pip install pydicom$"):
        load_image(tmp_path / "a.dcm")


def jpeg_lossless(values):
    """uint16 [H, W] of 12 bits as ISO/IEC 10918-1 has it: process 14, each value as its difference from the one on its
    left (from the one above at the left edge), its number of bits as a Huffman code of five bits.
    """
    height, width = values.shape
    bits = ""
    for y, x in np.ndindex(height, width):
        left, above = values[y, x - 1], values[y - 1, x]
        difference = int(values[y, x]) - int(left if x else above if y else 1 << 11)
        size = abs(difference).bit_length()
        bits += f"{size:05b}"
        if size:
            bits += f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = struct.pack(">HHBHHBBBB", 0xFFC3, 11, 12, height, width, 1, 1, 0x11, 0)
    codes = struct.pack(">HHB16B17B", 0xFFC4, 36, 0, *(17 * (length == 5) for length in range(1, 17)), *range(17))
    return b"\xff\xd8" + frame + codes + struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 1, 0, 1, 0, 0) + scan + b"\xff\xd9"


def packed(path):
    stored = dicom(path)
    data = dcmread(path)
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.PixelData = encapsulate([jpeg_lossless(stored)])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    return stored


def test_lossless_jpeg(tmp_path):
    """As most archives of mammograms and radiographs keep them."""
    stored = packed(tmp_path / "a.dcm")
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.dcm")), eight_bit(stored))


def test_without_a_decoder(tmp_path, monkeypatch):
    packed(tmp_path / "a.dcm")
    monkeypatch.setattr(get_decoder(JPEGLosslessSV1), "_available", {})
    message = r"^DICOM images in JPEG Lossless, .* need a decoder: pip install python-gdcm$"
    with pytest.raises(BenchError, match=message):
        load_image(tmp_path / "a.dcm")


@pytest.mark.parametrize("damage", ["precision", "transfer syntax", "cut"])
def test_what_ends_the_decoder_does_not_end_us(tmp_path, damage):
    """gdcm ends its process on the first one."""
    stored = packed(tmp_path / "a.dcm")
    content = (tmp_path / "a.dcm").read_bytes()
    frame = content.index(b"\xff\xc3")
    if damage == "precision":
        bad = content[: frame + 4] + b"\x65" + content[frame + 5 :]
    elif damage == "transfer syntax":
        data = dcmread(BytesIO(content))
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless
        data.save_as(tmp_path / "a.dcm")
        bad = (tmp_path / "a.dcm").read_bytes()
    else:
        bad = content[: frame + 40] + bytes(len(content) - frame - 48) + content[-8:]
    for _ in range(2):
        with pytest.raises(BadRow, match=r"cannot be decoded: DICOM whose pixels in JPEG.* are damaged"):
            load_image(bad)
        np.testing.assert_array_equal(np.asarray(load_image(content)), eight_bit(stored))


def test_what_blocks_the_decoder_does_not_block_us(tmp_path, monkeypatch):
    expected = eight_bit(packed(tmp_path / "a.dcm"))
    for signal_, seconds in ((signal.SIGSTOP, 0.1), (signal.SIGKILL, 60)):
        np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.dcm")), expected)
        worker = decoding._workers.idle.queue[-1]._process
        worker.send_signal(signal_)
        monkeypatch.setattr(decoding, "SECONDS", seconds)
        if signal_ == signal.SIGSTOP:
            with pytest.raises(BadRow, match="they end or block the decoder"):
                load_image(tmp_path / "a.dcm")
        else:  # ended by the system while it was idle, for its memory, say
            worker.wait()
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.dcm")), expected)


def test_a_decoder_that_does_not_start(tmp_path, monkeypatch):
    packed(tmp_path / "a.dcm")
    decoding._workers.end()
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(BenchError, match="a process that decodes DICOM does not start"):
        load_image(tmp_path / "a.dcm")


def test_without_a_decoder_for_high_throughput_jpeg(tmp_path):
    packed(tmp_path / "a.dcm")
    data = dcmread(tmp_path / "a.dcm")
    data.file_meta.TransferSyntaxUID = HTJ2K
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(BenchError, match=r"need a decoder: pip install pylibjpeg pylibjpeg-openjpeg$"):
        load_image(tmp_path / "a.dcm")


def test_what_nothing_decodes_is_a_bad_row(tmp_path):
    packed(tmp_path / "a.dcm")
    data = dcmread(tmp_path / "a.dcm")
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")  # MPEG-4
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(BadRow, match="cannot be decoded"):
        load_image(tmp_path / "a.dcm")
