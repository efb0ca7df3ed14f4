"""Kinds of sources: each reads one layout into rows."""

from benchmark.data.sources.base import Fractions, Row, Source
from benchmark.data.sources.image_folder import ImageFolderSource
from benchmark.data.sources.manifest import ManifestSource
from benchmark.data.sources.npz import NpzSource
from benchmark.data.sources.phantom import PhantomSource

AnySource = PhantomSource | ManifestSource | ImageFolderSource | NpzSource
SOURCES: dict[str, type[Source]] = {
    "phantom": PhantomSource,
    "manifest": ManifestSource,
    "image_folder": ImageFolderSource,
    "npz": NpzSource,
}

__all__ = ["SOURCES", "AnySource", "Fractions", "Row", "Source"]
