"""The kinds of sources. Each reads one layout of data into rows."""

from benchmark.data.sources.base import Source
from benchmark.data.sources.h5 import H5Source
from benchmark.data.sources.hub import HubSource
from benchmark.data.sources.image_folder import ImageFolderSource
from benchmark.data.sources.manifest import ManifestSource
from benchmark.data.sources.npz import NpzSource
from benchmark.data.sources.phantom import PhantomSource
from benchmark.data.sources.webdataset import WebDatasetSource

AnySource = PhantomSource | ManifestSource | ImageFolderSource | NpzSource | H5Source | HubSource | WebDatasetSource
SOURCES: dict[str, type[Source]] = {
    "phantom": PhantomSource,
    "manifest": ManifestSource,
    "image_folder": ImageFolderSource,
    "npz": NpzSource,
    "h5": H5Source,
    "hub": HubSource,
    "webdataset": WebDatasetSource,
}

__all__ = ["SOURCES", "AnySource", "Source"]
