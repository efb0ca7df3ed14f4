"""Every sample file of pydicom and pydicom-data, against a rendering made of pydicom's own functions."""

from pathlib import Path

import data_store
import numpy as np
import pydicom
import pytest
from pydicom import dcmread, pixels
from pydicom.uid import ExplicitVRLittleEndian

from benchmark.data.images import load_image
from benchmark.data.problems import BadRow

pytestmark = pytest.mark.filterwarnings("ignore")

FOLDERS = (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent / "data")
FILES = {
    str(path.relative_to(folder)): path
    for folder in FOLDERS
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.suffix not in (".py", ".pyc")
}

PIXELLESS = r"no known image format|DICOM without pixels \(.+\)|it is an archive"
REFUSED = {
    "test_files/JPEG-lossy.dcm": r"pixels in JPEG Extended.* are damaged, or need another decoder",  # of 12 bits
    "test_files/JPGExtended.dcm": r"pixels in JPEG Extended.* are damaged, or need another decoder",
    "test_files/JPEG2000-embedded-sequence-delimiter.dcm": r"pixels in JPEG 2000.* are damaged",  # made so
    "test_files/MR_truncated.dcm": r"number of bytes of pixel data is less than expected",
    "test_files/badVR.dcm": r"invalid literal for int",  # 1A frames
    "test_files/meta_missing_tsyntax.dcm": r"photometric interpretation ''",
    "test_files/nested_priv_SQ.dcm": r"photometric interpretation ''",
}
"""The samples with pixels that cannot be read, and why."""


def has_pixels(path):
    data = dcmread(path, force=True, specific_tags=["PixelData", "FloatPixelData", "DoubleFloatPixelData"])
    return any(name in data for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))


WITH_PIXELS = [name for name, path in FILES.items() if has_pixels(path)]


def painted(stored, data):
    if not data.file_meta.TransferSyntaxUID.is_little_endian and "RedPaletteColorLookupTableData" in data:
        for colour in ("Red", "Green", "Blue"):  # pydicom takes their words as little endian
            element = data[f"{colour}PaletteColorLookupTableData"]
            element.value = np.frombuffer(element.value, ">u2").astype("<u2").tobytes()
    colours = pixels.apply_color_lut(stored, data)
    top = 255 if colours.max() <= 255 else 65535  # of 16 bits, some tables fill 8
    return colours[..., :3] * (255 / top)


def reference(path):
    """What pydicom's functions make of the first frame, float [H, W] or [H, W, 3] in 0..255."""
    data = dcmread(path, force=True)
    data.file_meta.setdefault("TransferSyntaxUID", ExplicitVRLittleEndian)
    stored = pixels.pixel_array(data, index=0)
    bits = data.BitsStored
    if data.PhotometricInterpretation == "PALETTE COLOR":
        return painted(stored, data)
    if stored.ndim == 3:
        return stored * (255 / (2**bits - 1))
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            if groups in data and macro in data[groups][0]:
                data.update(data[groups][0][macro][0])
    values = pixels.apply_modality_lut(stored, data)
    shown = pixels.apply_voi_lut(values, data)
    if "VOILUTSequence" in data:
        low, high = 0, 2 ** data.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "WindowWidth" in data:
        low, high = (0, 2**bits - 1) if data.PixelRepresentation == 0 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        low, high = (end * data.get("RescaleSlope", 1) + data.get("RescaleIntercept", 0) for end in (low, high))
    elif bits <= 8:
        low, high = 0, 2**bits - 1
    else:
        real = values[stored != data.get("PixelPaddingValue", "none")]
        low, high = real.min(), real.max()
    grey = (shown.astype(float) - low) * (255 / (high - low))
    if data.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    grey = np.where(stored == data.get("PixelPaddingValue", "none"), 0, grey)
    if data.get("PixelPresentation") == "COLOR":  # a supplemental palette
        del data.PixelPresentation
        coloured = (stored >= data.RedPaletteColorLookupTableDescriptor[1])[..., None]
        grey = np.where(coloured, painted(stored, data), grey[..., None])
    return grey


LARGE = [name for name in WITH_PIXELS if name.startswith(("RG1", "RG3", "MR2")) and name != "RG3_UNCR.dcm"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name
        for name in sorted({*WITH_PIXELS} - {*REFUSED})
    ],
)
def test_a_sample_is_shown_as_pydicoms_functions_show_it(name):
    found = np.asarray(load_image(FILES[name]), dtype=float)
    expected = reference(FILES[name])
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    "names",
    [
        ("OBXXXX1A.dcm", "OBXXXX1A_expb.dcm", "OBXXXX1A_rle.dcm", "OBXXXX1A_2frame.dcm"),
        ("gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm"),
        ("emri_small.dcm", "emri_small_big_endian.dcm", "emri_small_RLE.dcm", "emri_small_jpeg_ls_lossless.dcm"),
        ("liver.dcm", "liver_expb.dcm", "test_files/liver_1frame.dcm"),
        ("SC_rgb.dcm", "SC_rgb_16bit.dcm", "SC_rgb_expb_32bit.dcm", "test_files/SC_rgb_rle_32bit_2frame.dcm"),
        ("color-pl.dcm", "color-px.dcm"),
        ("US1_UNCR.dcm", "US1_J2KR.dcm"),
    ],
    ids=lambda names: names[0],
)
def test_one_image_in_several_encodings(names):
    first, *others = (np.asarray(load_image(FILES[name])) for name in names)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_the_samples_that_are_refused():
    for name in FILES:
        if name in REFUSED or name not in WITH_PIXELS:
            with pytest.raises(BadRow, match=REFUSED.get(name, PIXELLESS)):
                load_image(FILES[name])
