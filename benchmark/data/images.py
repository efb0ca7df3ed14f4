"""Decode image files of any format and bit depth into 8-bit RGB."""

import logging
import stat
import warnings
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from benchmark.common.errors import BenchError
from benchmark.data.problems import BadRow

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that Pillow may open: those that it decodes itself. For EPS it would start another program."""
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it says of broken files is in our own messages
Image.init()  # formats= only accepts plug-ins that are loaded
DICOM_SUFFIXES = (".dcm", ".dicom")
DECODERS = "python-gdcm"
"""The package with decoders for pydicom, which finds them by itself."""
MAX_PIXELS = 89_478_485
"""The limit from which on Pillow, too, suspects a decompression bomb."""
MAX_LABELS = 1 << 28
"""The most bytes of the array with the labels of a split."""


def decode_image(source: Path | bytes) -> Image.Image:
    """Decode an image file, or its content, into an upright RGB image.

    EXIF orientation is applied. More than 8 bits a channel are scaled from the smallest and largest value in the image
    to 0..255, since scanners use 10, 12 or 14 of 16 bits; NaN counts as the smallest. Transparent parts become white.
    Of several frames the first is taken. DICOM files are shown in the window that their header asks for.

    Raises ``BadRow`` when the file cannot be decoded completely, and ``BenchError`` when it cannot be opened, or for
    DICOM without pydicom or a decoder.
    """
    picture = load_image(source)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def load_image(source: Path | bytes) -> Image.Image:
    """Decode like decode_image(), but leave a grey image in one channel (mode L)."""
    try:
        if isinstance(source, Path) and not stat.S_ISREG(source.stat().st_mode):
            raise BadRow("image cannot be decoded", "is not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with BytesIO(source) if isinstance(source, bytes) else _open(source) as file:
                if _is_dicom(source):
                    return _eight_bit(_load_dicom(file))
                with Image.open(file, formats=FORMATS) as picture:
                    check_size(*picture.size)
                    picture.load()
                    return _eight_bit(ImageOps.exif_transpose(picture))
    except (BadRow, BenchError):
        raise
    except Image.DecompressionBombError as error:
        raise BadRow("image is too large", f"is refused: {error}") from error
    except Exception as error:  # on hostile files decoders raise more than OSError
        unidentified = isinstance(error, UnidentifiedImageError)
        reason = "no known image format" if unidentified else getattr(error, "strerror", None) or str(error)
        raise BadRow("image cannot be decoded", f"cannot be decoded: {reason}") from error


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        # Not a bad row: bad rows are remembered until the file changes, but this error may go away without that.
        raise BenchError(f"image {path} cannot be read: {error.strerror}") from error


def check_size(width: int, height: int) -> None:
    """Raise ``BadRow`` for an image of more than MAX_PIXELS pixels."""
    if width * height > MAX_PIXELS:
        message = f"has {width} x {height} pixels, more than {MAX_PIXELS:,}: refused as a decompression bomb"
        raise BadRow("image is too large", message)


def _is_dicom(source: Path | bytes) -> bool:
    if isinstance(source, Path):
        return source.suffix.lower() in DICOM_SUFFIXES
    return source[128:132] == b"DICM"


def _load_dicom(file: BinaryIO) -> Image.Image:
    """Grey values rescaled and windowed as the header says, with black for no signal (DICOM PS3.3, C.11)."""
    try:
        import pydicom
        from pydicom import pixels
    except ImportError as error:
        raise BenchError("DICOM images need pydicom: pip install pydicom") from error
    dicom = pydicom.dcmread(file, force=False)
    check_size(int(dicom.Columns), int(dicom.Rows))
    syntax = dicom.file_meta.TransferSyntaxUID
    if not pixels.get_decoder(syntax).is_available:
        # Not a bad row: all images of a dataset would be left out.
        raise BenchError(f"DICOM images in {syntax.name} need a decoder: pip install {DECODERS}")
    values = pixels.pixel_array(dicom, index=0)
    if values.ndim == 3:
        return Image.fromarray(values.astype(np.uint8))
    values = pixels.apply_voi_lut(pixels.apply_modality_lut(values, dicom), dicom).astype(np.float32)
    if dicom.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() - values
    return Image.fromarray(values)


def _eight_bit(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode in ("LA", "PA", "RGBA", "La", "RGBa") or (mode in ("L", "RGB", "P") and "transparency" in picture.info):
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    if mode in ("RGB", "L"):
        return picture
    if mode == "1":
        return picture.convert("L")
    if mode.startswith("I") or mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        finite = np.isfinite(values)
        low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
        values = np.where(finite, values, np.where(values > 0, high, low))
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray(np.round(scaled).astype(np.uint8))
    return picture.convert("RGB")


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode pixels, uint8 [H, W] or [H, W, 3], as PNG."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
