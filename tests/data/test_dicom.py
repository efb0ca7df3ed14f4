import struct
import sys

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEGLosslessSV1

from benchmark.common.errors import BenchError
from benchmark.data.images import load_image
from benchmark.data.problems import BadRow
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
    found = np.asarray(load_image(tmp_path / "a.dcm")).astype(int)
    assert np.abs(found - eight_bit(y)).max() <= 1


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


def test_what_nothing_decodes_is_a_bad_row(tmp_path):
    packed(tmp_path / "a.dcm")
    data = dcmread(tmp_path / "a.dcm")
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")  # MPEG-4
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(BadRow, match="cannot be decoded"):
        load_image(tmp_path / "a.dcm")
