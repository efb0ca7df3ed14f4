"""Show the first frame of a DICOM file as 8-bit grey or RGB, in the order of the standard.

Grey: padding set aside -> modality LUT or rescale -> VOI LUT or window -> inversion (DICOM PS3.3, C.11.1, C.11.2,
C.7.6.3.1.2 and C.7.5.1.1.2; PS3.4, N.2). Palettes: C.7.6.3.1.5, C.7.6.3.1.6 and C.7.9.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from benchmark.common.errors import BenchError
from benchmark.data.decoding import DecoderCrash, decode_apart
from benchmark.data.problems import BadRow

if TYPE_CHECKING:
    import pydicom

MAGIC = slice(128, 132)
"""Where DICM stands in a file with a preamble."""
HEAD = 132
"""How many bytes of a file tell whether it is DICOM."""
PIXELS = {"PixelData": "", "FloatPixelData": "Float", "DoubleFloatPixelData": "DoubleFloat"}
"""The elements that hold pixels, and how the names of their padding begin."""
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
"""The colour spaces that pydicom turns into RGB."""


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is DICOM: by its magic, or without preamble by its first element."""
    if head[MAGIC] == b"DICM":
        return True
    if len(head) < 8:
        return False
    for order in "<>":
        group, number = struct.unpack(f"{order}HH", head[:4])
        if group in (0x0002, 0x0008) and number <= 0x0018:
            (length,) = struct.unpack(f"{order}I", head[4:8])
            return (head[4:6].isalpha() and head[4:6].isupper()) or (length <= 1024 and length % 2 == 0)
    return False


def read_dicom(file: BinaryIO) -> "pydicom.Dataset":
    """Read a file, with preamble and transfer syntax or without, whose pixels can be decoded.

    Raises ``BadRow`` for a file without pixels, and ``BenchError`` without pydicom or a decoder for the pixels.
    """
    try:
        import pydicom
        from pydicom import pixels, uid
    except ImportError as error:
        raise BenchError("DICOM images need pydicom: pip install pydicom") from error
    dicom = pydicom.dcmread(file, force=True)
    if not any(keyword in dicom for keyword in PIXELS):
        kind = dicom.get("SOPClassUID") or dicom.file_meta.get("MediaStorageSOPClassUID")
        raise _bad(f"DICOM without pixels ({getattr(kind, 'name', 'of no known kind')})")
    if "TransferSyntaxUID" not in dicom.file_meta:
        implicit, little = dicom.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dicom.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    syntax = dicom.file_meta.TransferSyntaxUID
    try:
        available = pixels.get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise _bad(f"DICOM in {syntax.name}, which is not read") from error
    if not available:
        # Not a bad row: all images of a dataset would be left out.
        package = "pylibjpeg pylibjpeg-openjpeg" if "High-Throughput" in syntax.name else "python-gdcm"
        raise BenchError(f"DICOM images in {syntax.name} need a decoder: pip install {package}")
    return dicom


def rendered(dicom: "pydicom.Dataset") -> np.ndarray:
    """Render the first frame as uint8 [H, W] or [H, W, 3]; black is no signal, and padding is black.

    Of several windows or VOI LUTs the first counts, and a LUT before a window. Without either, values of up to 8 bits
    are shown over their whole range, and deeper ones from the smallest to the largest in the image. Colours are shown
    over their whole range. Overlays and ICC profiles are ignored.
    """
    photometric = str(dicom.get("PhotometricInterpretation", "")).strip().upper()
    if photometric.startswith("MONOCHROME"):
        values = _pixels(dicom, 1)
        hidden = _padding(values, dicom) | np.isnan(values)
        if dicom.get("PixelPresentation") not in ("COLOR", "MIXED"):
            return _grey(values, hidden, dicom)
        # A supplemental palette (PS3.3, C.7.6.19) gives colours to the values from its first one on.
        coloured = values >= _palette(dicom)[0].first
        grey = _grey(values, hidden | coloured, dicom)
        return np.where(coloured[..., None], _painted(values, dicom), grey[..., None])
    if photometric == "PALETTE COLOR":
        return _painted(_pixels(dicom, 1), dicom)
    if photometric not in COLOURS:
        raise _bad(f"DICOM with photometric interpretation '{photometric}', which is not read")
    bits = int(dicom.BitsStored)
    if bits > 8 and photometric != "RGB":
        raise _bad(f"DICOM in {photometric} of {bits} bits, which is not read")
    values = _pixels(dicom, 3)
    return values if values.dtype == np.uint8 and bits == 8 else _to_bytes(values / (2.0**bits - 1))


def _bad(reason: str) -> BadRow:
    return BadRow("image cannot be decoded", f"cannot be decoded: {reason}")


def _to_bytes(shares: np.ndarray) -> np.ndarray:
    """0..1 as 0..255; what lies outside is clipped."""
    result: np.ndarray = np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
    return result


def _number(dicom: "pydicom.Dataset", keyword: str) -> float | None:
    """The first number of an element, or None if there is none."""
    value = dicom.get(keyword)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    return None if value is None or value == "" else float(value)


def _macro(dicom: "pydicom.Dataset", name: str) -> "pydicom.Dataset":
    """Where the first frame's attributes of a functional group are: the header itself in files without groups."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in (dicom.get(groups) or [])[:1]:
            for macro in (group.get(name) or [])[:1]:
                return macro
    return dicom


def _stored_range(dicom: "pydicom.Dataset") -> tuple[int, int]:
    bits = int(dicom.BitsStored)
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if dicom.PixelRepresentation else (0, (1 << bits) - 1)


def _padding(values: np.ndarray, dicom: "pydicom.Dataset") -> np.ndarray:
    """Which stored values are padding: PixelPaddingValue, or everything from it to PixelPaddingRangeLimit."""
    kind = next(prefix for keyword, prefix in PIXELS.items() if keyword in dicom)
    value, limit = (_number(dicom, f"{kind}PixelPadding{end}") for end in ("Value", "RangeLimit"))
    if value is None:
        return np.zeros(values.shape, dtype=bool)
    ends = sorted((value, value if limit is None else limit))
    if not kind:
        # -2000 is often written as 63536.
        size = 1 << int(dicom.BitsAllocated)
        half = size // 2 if dicom.PixelRepresentation else 0
        ends = sorted((end + half) % size - half for end in ends)
        low, high = _stored_range(dicom)
        if ends[0] < low or ends[1] > high:
            values = _pixels(dicom, 1, correct_unused_bits=False)
    return (values >= ends[0]) & (values <= ends[1])


def _pixels(dicom: "pydicom.Dataset", samples: int, **options: Any) -> np.ndarray:
    """The stored values of the first frame, [H, W] or RGB [H, W, 3]."""
    from pydicom import encaps, pixels, uid

    syntax = dicom.file_meta.TransferSyntaxUID
    try:
        if syntax.is_encapsulated and syntax != uid.RLELossless:
            options = pixels.utils.as_pixel_options(dicom, **options)
            which = {
                "number_of_frames": options["number_of_frames"],
                "extended_offsets": options.pop("extended_offsets", None),
            }
            frame = encaps.encapsulate([encaps.get_frame(dicom.PixelData, 0, **which)])
            values = decode_apart(str(syntax), frame, options | {"number_of_frames": 1})
        else:
            values = pixels.pixel_array(dicom, index=0, **options)
    except DecoderCrash as error:
        raise _bad(f"DICOM whose pixels in {syntax.name} are damaged: they end or block the decoder") from error
    except RuntimeError as error:  # lists what each decoder said
        reason = "damaged"
        if any("pylibjpeg" in missing for missing in pixels.get_decoder(syntax).missing_dependencies):
            reason += ", or need another decoder: pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
        raise _bad(f"DICOM whose pixels in {syntax.name} are {reason}") from error
    if values.shape[2:] != (samples,)[samples == 1 :]:
        photometric, count = dicom.PhotometricInterpretation, dicom.SamplesPerPixel
        raise _bad(f"DICOM in {photometric} with {count} samples per pixel; expected {samples}")
    return values


def _grey(values: np.ndarray, hidden: np.ndarray, dicom: "pydicom.Dataset") -> np.ndarray:
    """Show stored values as uint8 [H, W]. ``hidden`` ones become black and do not count."""
    whole = None
    """The smallest and the largest possible value, if values are shown over their whole range."""
    if values.dtype.kind in "iu" and int(dicom.BitsStored) <= 8:
        whole = np.array(_stored_range(dicom), dtype=np.float64)
    if items := dicom.get("ModalityLUTSequence"):
        table = _lookup_table(items[0], dicom, signed=values.dtype.kind == "i")
        values = table(values)
        whole = np.array([0.0, table.top]) if table.top <= 255 else None
    else:
        macro = _macro(dicom, "PixelValueTransformationSequence")
        slope, intercept = _number(macro, "RescaleSlope"), _number(macro, "RescaleIntercept")
        slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
        values = values * slope + intercept
        whole = whole if whole is None else np.sort(whole * slope + intercept)
    shares = _voi(values, _macro(dicom, "FrameVOILUTSequence"), dicom)
    if shares is None:
        low, high = whole if whole is not None else _ends(values[~hidden])
        if high <= low:
            return np.zeros(values.shape, dtype=np.uint8)
        shares = (values - low) / (high - low)
    grey = _to_bytes(shares)
    # Both say the same, and files that have both are inverted once (PS3.3, C.8.11.3.1.2).
    if dicom.PhotometricInterpretation.strip() == "MONOCHROME1" or dicom.get("PresentationLUTShape") == "INVERSE":
        grey = 255 - grey
    grey[hidden] = 0
    return grey


def _ends(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _voi(values: np.ndarray, macro: "pydicom.Dataset", dicom: "pydicom.Dataset") -> np.ndarray | None:
    """Apply the first VOI LUT, or else the first window. Returns 0..1, or None without a usable one of either."""
    items = macro.get("VOILUTSequence")
    if items and items[0].get("LUTDescriptor") and items[0].get("LUTData"):
        table = _lookup_table(items[0], dicom, signed=bool(values.size and np.nanmin(values) < 0))
        return table(values) / table.top
    centre, width = _number(macro, "WindowCenter"), _number(macro, "WindowWidth")
    function = str(macro.get("VOILUTFunction") or "LINEAR").strip().upper()
    if centre is None or width is None or not np.isfinite([centre, width]).all():
        return None
    if width < 1 if function == "LINEAR" else width <= 0:
        return None  # the standard forbids it, and it shows nothing
    if function == "SIGMOID":  # PS3.3, C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w)), which overflows
        sigmoid: np.ndarray = 0.5 * (1 + np.tanh(2 * (values - centre) / width))
        return sigmoid
    if function == "LINEAR":  # C.11.2.1.2.1; LINEAR_EXACT (C.11.2.1.3.2) leaves out both corrections
        centre, width = centre - 0.5, width - 1
    elif function != "LINEAR_EXACT":
        raise _bad(f"DICOM with VOI LUT function '{function}', which is not read")
    return (values - centre) / width + 0.5 if width else np.where(values > centre, 1.0, 0.0)


@dataclass(frozen=True)
class LookupTable:
    """A table of ``first`` and the values after it; smaller and larger ones get its first and last entry.

    top: the largest value that an entry can have.
    """

    first: int
    entries: np.ndarray
    top: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Look up values; between two integers the nearer one counts, and NaN is 0."""
        if values.dtype.kind == "f":
            values = np.clip(np.nan_to_num(np.rint(values)), -(1 << 32), 1 << 32)
        entries: np.ndarray = self.entries[np.clip(values.astype(np.int64) - self.first, 0, len(self.entries) - 1)]
        return entries


def _lookup_table(item: "pydicom.Dataset", dicom: "pydicom.Dataset", signed: bool) -> LookupTable:
    count, first, bits = _descriptor(item.LUTDescriptor, signed)
    entries = _entries(item.LUTData, count, dicom)
    return LookupTable(first, entries, float(max((1 << bits) - 1, entries.max())))


def _descriptor(values: Sequence[int], signed: bool) -> tuple[int, int, int]:
    """Number of entries, first value and bits of an entry: the number modulo 2^16, the value signed if values are."""
    count, first, bits = (int(value) & 0xFFFF for value in values)
    if not 8 <= bits <= 16:
        raise _bad(f"DICOM with a lookup table of {bits} bits; expected 8 to 16")
    return count or 1 << 16, first - (1 << 16) if signed and first >= 1 << 15 else first, bits


def _entries(data: Any, count: int, dicom: "pydicom.Dataset") -> np.ndarray:
    """The entries of a lookup table, int64: words of 16 bits, or two in a word, the first in its low byte."""
    entries = _words(data, dicom)
    if len(entries) < count <= 2 * len(entries):
        entries = entries.astype("<u2").view(np.uint8)
    if len(entries) < count:
        raise _bad(f"DICOM with a lookup table of {len(entries)} entries; expected {count}")
    return entries[:count].astype(np.int64)


def _words(data: Any, dicom: "pydicom.Dataset") -> np.ndarray:
    if isinstance(data, bytes):
        little = dicom.file_meta.TransferSyntaxUID.is_little_endian
        return np.frombuffer(data, dtype="<u2" if little else ">u2")
    return np.atleast_1d(np.asarray(data)).astype(np.uint16)


def _palette(dicom: "pydicom.Dataset") -> list[LookupTable]:
    """The tables of red, green and blue, with entries uint8."""
    tables = []
    for colour in ("Red", "Green", "Blue"):
        descriptor = dicom.get(f"{colour}PaletteColorLookupTableDescriptor")
        plain = dicom.get(f"{colour}PaletteColorLookupTableData")
        segmented = dicom.get(f"Segmented{colour}PaletteColorLookupTableData")
        if not descriptor or not (plain or segmented):
            raise _bad(f"DICOM without the palette's table of {colour.lower()}")
        count, first, bits = _descriptor(descriptor, bool(dicom.PixelRepresentation))
        entries = _entries(plain, count, dicom) if plain else _unfolded(segmented, count, bits, dicom)
        tables.append(LookupTable(first, entries, 255.0))
    # Some files name 16 bits and fill 8.
    top = 255.0 if max(table.entries.max() for table in tables) <= 255 else 65535.0
    return [LookupTable(table.first, _to_bytes(table.entries / top), 255.0) for table in tables]


def _painted(values: np.ndarray, dicom: "pydicom.Dataset") -> np.ndarray:
    """Look the colours of stored values up, uint8 [H, W, 3]."""
    return np.stack([table(values) for table in _palette(dicom)], axis=-1)


def _unfolded(data: Any, count: int, bits: int, dicom: "pydicom.Dataset") -> np.ndarray:
    """The ``count`` entries of a segmented table (PS3.3, C.7.9.2), int64."""
    words = _words(data, dicom)
    size = 1 if bits == 8 else 2
    units = (words.astype("<u2").view(np.uint8) if size == 1 else words).tolist()
    entries: list[int] = []
    _unfold(units, size, 0, len(units), count, entries, indirect=False)
    if len(entries) < count:
        raise _bad(f"DICOM with a segmented palette of {len(entries)} entries; expected {count}")
    return np.array(entries[:count], dtype=np.int64)


def _unfold(
    units: list[int], size: int, at: int, segments: int, count: int, entries: list[int], indirect: bool
) -> None:
    """Append the entries of ``segments`` segments from ``at`` on, until there are ``count``. size: bytes of a unit."""
    while segments and len(entries) < count and at + 2 < len(units):
        kind, length, at, segments = units[at], units[at + 1], at + 2, segments - 1
        if kind == 0:  # discrete
            entries += units[at : at + length]
            at += length
        elif kind == 1 and entries and length:  # linear, from the last entry to the one named here
            start, end = entries[-1], units[at]
            entries += [round(start + (end - start) * step / length) for step in range(1, length + 1)]
            at += 1
        elif kind == 2 and entries and not indirect:  # other segments again, by their place in bytes
            place = sum(unit << (8 * size * i) for i, unit in enumerate(units[at : at + 4 // size])) // size
            _unfold(units, size, place, length, count, entries, indirect=True)
            at += 4 // size
        else:
            raise _bad(f"DICOM with a segmented palette in which a segment of type {kind} is out of place")
