"""Decode image files of any format and bit depth into 8-bit RGB."""

import logging
import re
import stat
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from benchmark.common.errors import BenchError, MachineError, explained, is_of_the_machine, reading_failed
from benchmark.data.dicom import HEAD, is_dicom, read_dicom, rendered
from benchmark.data.problems import BadRow
from benchmark.data.resizing import DEFAULT, Draft, Resizing, resized

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it says of broken files is in our own messages
Image.init()  # formats= only accepts plug-ins that are loaded
FORMATS = tuple(
    each
    for each in ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
    if each in Image.OPEN  # AVIF: from Pillow 11.3 on
)
"""The formats that Pillow may open: those that it decodes itself. For EPS it would start another program."""
SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("avif", "bmp", "dcm", "dicom", "gif", "ima", "jfif", "jp2", "jpe", "jpeg", "jpg"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
"""The suffixes of image files. Which format a file has is seen in the file itself."""
FOREIGN = (
    (rb"....ftypavi[fs]", "AVIF, which this Pillow does not decode: pip install 'pillow>=11.3'"),
    (rb"....ftyp(he[iv][cxms]|mif1|msf1)", "HEIC, which is not read: convert it to PNG or JPEG (heif-convert does)"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL, which is not read: convert it to PNG (djxl does)"),
    (rb"version https://git-lfs", "a pointer of Git LFS in place of the image: run 'git lfs pull'"),
    (rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|svg)", "a web page or XML, and no image: download it again"),
    (rb"\x1f\x8b|PK\x03\x04|BZh|\xfd7zXZ", "an archive: unpack it"),
    (rb"%PDF", "PDF, which is not read: convert its pages to PNG (pdftoppm does)"),
)
"""What else files with an image's name often are: a pattern of their first bytes, and what to say."""
PNG = b"\x89PNG\r\n\x1a\n"
METADATA = {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}
"""The chunks of PNG that no pixel depends on, and that Pillow refuses when they are large or damaged."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of an EXIF orientation upright."""
SIDEWAYS = {5, 6, 7, 8}
"""The orientations with the width for the height."""
MAX_PIXELS = 89_478_485
"""The limit from which on Pillow, too, suspects a decompression bomb."""
MAX_LABELS = 1 << 28
"""The most bytes of the array with the labels of a split."""


def decode_image(source: Path | bytes) -> Image.Image:
    """Decode an image file, or its content, into an upright RGB image.

    The format is seen in the content, whatever the file is called. EXIF orientation is applied. Grey of more than 8
    bits is scaled from the smallest and largest value in the image to 0..255, since scanners use 10, 12 or 14 of 16
    bits; NaN counts as the smallest. Transparent parts become white. Of several frames the first is taken. How DICOM is
    shown: see dicom.rendered().

    Raises ``BadRow`` when the file cannot be decoded completely, and ``BenchError`` when it cannot be opened, or for
    DICOM without pydicom or a decoder.
    """
    picture = load_image(source)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def load_image(source: Path | bytes) -> Image.Image:
    """Decode like decode_image(), but leave a grey image in one channel (mode L)."""
    return _load(source)[0]


def load_resized(source: Path | bytes, size: int, resizing: Resizing = DEFAULT) -> np.ndarray:
    """Decode like decode_image() and resize, see resized(). A much larger JPEG is decoded at 1/2, 1/4 or 1/8."""
    picture, draft = _load(source, lambda width, height: resizing.reduction(width, height, size))
    return resized(picture, size, resizing, draft)


def check_image(source: Path | bytes) -> None:
    """Decode like decode_image(), only to see whether it can be: a JPEG at 1/8, which reads it completely."""
    _load(source, lambda width, height: 8 if min(width, height) >= 8 else 1)


Reduction = Callable[[int, int], int]
"""By how much to reduce a JPEG of a width and height."""


def _load(source: Path | bytes, reduction: Reduction | None = None) -> tuple[Image.Image, Draft | None]:
    """Decode like load_image(), but with ``reduction`` a JPEG at a reduced scale; return also how."""
    try:
        if isinstance(source, Path) and not stat.S_ISREG(source.stat().st_mode):
            raise BadRow("image cannot be decoded", "is not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with BytesIO(source) if isinstance(source, bytes) else _open(source) as file:
                head = file.read(HEAD)
                file.seek(0)
                if is_dicom(head):
                    dicom = read_dicom(file)
                    check_size(int(dicom.get("Columns") or 0), int(dicom.get("Rows") or 0))
                    return Image.fromarray(rendered(dicom)), None
                try:
                    return _load_picture(file, reduction)
                except Exception:
                    if head.startswith(PNG) and (pixels := _without_metadata(file)):
                        return _load_picture(BytesIO(pixels), reduction)
                    raise
    except (BadRow, BenchError):
        raise
    except Image.DecompressionBombError as error:
        raise BadRow("image is too large", f"is refused: {error}") from error
    except UnidentifiedImageError as error:
        raise BadRow("image cannot be decoded", f"cannot be decoded: {_unidentified(head)}") from error
    except Exception as error:  # on hostile files decoders raise more than OSError
        if is_of_the_machine(error):
            place = "an image" if isinstance(source, bytes) else f"image {source}"
            raise MachineError(f"{place} cannot be read: {explained(error)}") from error
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise BadRow("image cannot be decoded", f"cannot be decoded: {reason}") from error


def is_image_file(path: Path) -> bool:
    """Whether a file is meant to be an image: by its suffix, or by its content if it has none.

    DICOM files are often called IM0001, or 1.2.840.113619.2.1 by their UID.
    """
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.suffix[1:].strip("0123456789") or path.name == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            if not is_dicom(file.read(HEAD)):
                Image.open(file, formats=FORMATS).close()
    except OSError:  # UnidentifiedImageError is one
        return False
    except Exception:
        return True  # a damaged image is counted as such when it is decoded
    return True


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        # Not a bad row: bad rows are remembered until the file changes, but this error may go away without that.
        raise reading_failed(f"image {path} cannot be read: {error.strerror}", error) from error


def check_size(width: int, height: int) -> None:
    """Raise ``BadRow`` for an image of more than MAX_PIXELS pixels."""
    if width * height > MAX_PIXELS:
        message = f"has {width} x {height} pixels, more than {MAX_PIXELS:,}: refused as a decompression bomb"
        raise BadRow("image is too large", message)


def _load_picture(file: BinaryIO, reduction: Reduction | None) -> tuple[Image.Image, Draft | None]:
    with Image.open(file, formats=FORMATS) as picture:
        check_size(*picture.size)
        draft = _drafted(picture, reduction) if reduction else None
        picture.load()
        orientation = _orientation(picture)
        upright = _eight_bit(picture)
        return upright.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else upright, draft


def _drafted(picture: Image.Image, reduction: Reduction) -> Draft | None:
    """Have a JPEG decoded at a reduced scale, when it is loaded; return None for another format."""
    width, height = picture.size
    orientation = _orientation(picture)
    size = (height, width) if orientation in SIDEWAYS else (width, height)
    scale = reduction(*size)
    # Turned, a column or row that partly lies beyond the picture would become the first.
    while orientation in UPRIGHT and (width % scale or height % scale):
        scale //= 2
    return None if picture.draft(None, (width // scale, height // scale)) is None else Draft(size, scale)


def _orientation(picture: Image.Image) -> int | None:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata says nothing about the pixels
        return None


def _without_metadata(file: BinaryIO) -> bytes:
    """A PNG without its texts and colour profile; nothing if it has none of them, or ends within a chunk."""
    file.seek(0)
    content = file.read()
    kept, at = [PNG], len(PNG)
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4])
        if content[at + 4 : at + 8] not in METADATA:
            kept.append(content[at:end])
        at = end
    return b"".join(kept) if at == len(content) and sum(map(len, kept)) < at else b""


def _unidentified(head: bytes) -> str:
    """Say what a file is that is no image, or none that is read."""
    for pattern, what in FOREIGN:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return f"it is {what}"
    return f"no known image format; read are DICOM, {', '.join(FORMATS)}"


def _eight_bit(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode in ("LA", "PA", "RGBA", "La", "RGBa") or (
        mode in ("1", "L", "RGB", "P") and "transparency" in picture.info
    ):
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    if mode in ("RGB", "L"):
        return picture
    if mode == "1":
        return picture.convert("L")
    if mode.startswith("I") or mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        transparent = values == picture.info.get("transparency")
        finite = np.isfinite(values) & ~transparent
        low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
        values = np.where(finite, values, np.where(values > 0, high, low))
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray(np.where(transparent, 255, np.round(scaled)).astype(np.uint8))
    return picture.convert("RGB")


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode pixels, uint8 [H, W] or [H, W, 3], as PNG."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
