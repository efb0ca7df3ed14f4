"""Decode an image file into 8-bit RGB, whatever it is stored as."""

import os
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
"""What Pillow is allowed to open: pictures that it decodes itself (EPS, for one, would start another program)."""
Image.init()  # Pillow knows formats= only of the plug-ins that are loaded
DICOM_SUFFIXES = (".dcm", ".dicom")
DECODERS = "python-gdcm"
"""What pydicom finds by itself, for what it does not decode."""
MAX_PIXELS = 89_478_485
"""Where Pillow, too, begins to suspect a decompression bomb."""
MAX_LABELS = 1 << 28
"""Bytes of the array with the labels of a split."""


def decode_image(source: Path | bytes) -> Image.Image:
    """The picture as RGB, upright.

    EXIF orientation is applied. More than 8 bits a channel are scaled from the smallest and largest value that occur
    to 0..255, since scanners use 10, 12 or 14 bits of 16; NaN counts as the smallest. Transparent parts are white.
    Of several frames, the first. DICOM files are shown in the window that they ask for. Raises ``BadRow`` when the file
    cannot be decoded as a whole, ``BenchError`` where it cannot be opened and for DICOM without pydicom or a decoder.
    """
    picture = load_image(source)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def load_image(source: Path | bytes) -> Image.Image:
    """Like decode_image(), but a grey picture stays in one channel (mode L)."""
    try:
        if isinstance(source, Path) and not stat.S_ISREG(os.stat(source).st_mode):
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
    except Exception as error:  # what a decoder raises on a hostile file is not limited to OSError
        unidentified = isinstance(error, UnidentifiedImageError)
        reason = "no known image format" if unidentified else getattr(error, "strerror", None) or str(error)
        raise BadRow("image cannot be decoded", f"cannot be decoded: {reason}") from error


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        # Not a bad row: those are remembered for as long as the file is the same, and this may end before.
        raise BenchError(f"image {path} cannot be read: {error.strerror}") from error


def check_size(width: int, height: int) -> None:
    """Raise ``BadRow`` for more pixels than an image can have."""
    if width * height > MAX_PIXELS:
        message = f"has {width} x {height} pixels, more than {MAX_PIXELS:,}: refused as a decompression bomb"
        raise BadRow("image is too large", message)


def _is_dicom(source: Path | bytes) -> bool:
    if isinstance(source, Path):
        return source.suffix.lower() in DICOM_SUFFIXES
    return source[128:132] == b"DICM"


def _load_dicom(file: BinaryIO) -> Image.Image:
    """Grey values rescaled and windowed as the header says, with black as nothing (DICOM PS3.3, C.11)."""
    try:
        import pydicom
        from pydicom import pixels
    except ImportError as error:
        raise BenchError("DICOM images need pydicom: pip install pydicom") from error
    dicom = pydicom.dcmread(file, force=False)
    check_size(int(dicom.Columns), int(dicom.Rows))
    syntax = dicom.file_meta.TransferSyntaxUID
    if not pixels.get_decoder(syntax).is_available:
        # Not a bad row: all images of a set would drop out.
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
    """pixels: uint8 [H, W] or [H, W, 3]."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
