import sys

import numpy as np
import pytest

from benchmark.data.images import load_image
from benchmark.data.problems import BadRow
from benchmark.errors import BenchError
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
