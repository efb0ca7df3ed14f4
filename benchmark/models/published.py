"""Cards of published models: what each is made of, on which terms it comes, where its files are, and how to load it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchmark.common.errors import BenchError
from benchmark.common.hub import hub_answers
from benchmark.config.validation import validated
from benchmark.config.yaml_files import find_config, published_models_folder, read_yaml
from benchmark.models.weights import hub
from benchmark.store.hashing import file_digest

FOLDER = "BENCH_MODELS"
"""The environment variable that names a folder of downloaded models."""


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Block):
    """A place that files of a model come from: a repository of the Hugging Face hub, or a page.

    dataset: whether the repository is one of datasets. revision: a commit, tag or branch; null for the newest.
    files: names; `a | b` where either is enough.
    """

    repository: str = ""
    dataset: bool = False
    revision: str | None = None
    page: str = ""
    files: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if bool(self.repository) == bool(self.page):
            raise ValueError("set exactly one of repository and page")
        return self

    def lacking(self, folder: Path) -> str:
        """Return the first of the files that a folder does not have; "" if it has all."""
        return next((file for file in self.files if self.path_of(file, folder) is None), "")

    def path_of(self, file: str, folder: Path) -> Path | None:
        """Return the path of a file, or of the first of its alternatives that the folder has."""
        paths = (folder / name.strip() for name in file.split("|"))
        return next((path for path in paths if path.is_file()), None)

    def command(self, folder: str) -> str:
        """Write how to get the files into the hub's cache; for those of a page, into a folder."""
        names = " ".join(name.strip() for file in self.files for name in file.split("|"))
        if self.page:
            return f"get {names} from {self.page} into {folder}"
        # Where one of several files is enough, the whole repository is the shortest command that is sure to work.
        some = "" if any("|" in file for file in self.files) else f" {names}"
        kind = " --repo-type dataset" if self.dataset else ""
        revision = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.repository}{some}{kind}{revision}"


class OpenClipLoading(_Block):
    """A model of open_clip's classes. Exactly one of architecture, config and neither: open_clip_config.json.

    architecture: a name that open_clip knows. config: a model_cfg, as in open_clip_config.json.
    weights: the file of the first source, as there. rename: beginnings of names of tensors, by those of the file.
    preprocess: in place of the preprocess_cfg of the file, or of open_clip's default (CLIP's).
    text: the number of the source that has the configuration of the text tower, from transformers.
    tokenizer: the number of the source that has the tokenizer; null for CLIP's, which is part of open_clip.
    """

    kind: Literal["open_clip"]
    architecture: str | None = None
    config: dict[str, Any] | None = None
    weights: str
    rename: dict[str, str] = {}
    preprocess: dict[str, Any] = {}
    text: int | None = None
    tokenizer: int | None = None


class TransformersLoading(_Block):
    """A CLIP or SigLIP of transformers, with its tokenizer and image processor, in the first source.

    lowercase: whether texts are lower-cased before the tokenizer.
    """

    kind: Literal["transformers"]
    lowercase: bool = False


class MedClipLoading(_Block):
    """The layout of MedCLIP: a Swin and a BERT of transformers, each with a projection, in one state dict.

    The sources are those of the weights, of the BERT, and of the Swin's configuration.
    """

    kind: Literal["medclip"]
    weights: str
    mean: float
    std: float
    context_length: int


class PmcClipLoading(_Block):
    """The layout of PMC-CLIP: CLIP's ResNet and a BERT of transformers with a matrix as projection, in one state dict.

    The sources are those of the weights and of the BERT. The other keys are those of its model configuration.
    """

    kind: Literal["pmc_clip"]
    weights: str
    embed_dim: int
    image_size: int
    layers: list[int]
    width: int
    context_length: int


class ConchLoading(_Block):
    """The layout of CONCH: the encoders of a CoCa whose images are pooled by attention, in one state dict.

    The sources are those of the weights and of the tokenizer. config: its model configuration.
    """

    kind: Literal["conch"]
    weights: str
    tokenizer: str
    config: dict[str, Any]


Loading = Annotated[
    OpenClipLoading | TransformersLoading | MedClipLoading | PmcClipLoading | ConchLoading, Field(discriminator="kind")
]


class PublishedModel(_Block):
    """A published model: configs/models/published/NAME.yaml, or the user's own file with the same keys.

    paper: where it was published. gated: whether its terms must be accepted on the hub; null where no source says.
    architecture, tokenizer, preprocessing: in words, for readers. prompts: the templates of its authors, with ``{}``
    for the class; empty where no source states any. sources: of its files, the weights first.
    notes: what is said where (repository, file), and what could not be established.
    """

    name: str
    title: str
    paper: str
    licence: str
    gated: bool | None
    architecture: str
    tokenizer: str
    preprocessing: str
    prompts: list[str] = []
    sources: list[Source] = Field(min_length=1)
    load: Loading
    notes: list[str] = Field(min_length=1)

    @property
    def commands(self) -> list[str]:
        """How to get the files once, a command or a step for each source."""
        return [source.command(f"${FOLDER}/{self.name}") for source in self.sources]

    def find(self) -> list[Path]:
        """Find the folder of each source, downloading what is missing where the hub can be reached.

        Looks in $BENCH_MODELS, in a folder of the model's name or of the repository's, then in the hub's cache.
        Raises ``BenchError`` in one line: the file that is missing, where it was looked for, and how to get it.
        """
        return [self._folder(source, first=source is self.sources[0]) for source in self.sources]

    def hashes(self, folders: list[Path]) -> dict[str, str]:
        """Hash the files of each source, by number and name."""
        hashes: dict[str, str] = {}
        for number, (source, folder) in enumerate(zip(self.sources, folders)):
            for names in source.files:
                paths = [folder / name.strip() for name in names.split("|")]
                hashes |= {f"{number}: {path.name}": file_digest(path) for path in paths if path.is_file()}
        return hashes

    def _folder(self, source: Source, first: bool) -> Path:
        own = os.environ.get(FOLDER)
        name = self.name if first or source.page else source.repository.rpartition("/")[2]
        candidates = [Path(own).expanduser() / name] if own else []
        if source.repository:
            candidates += _cached(source)
        for folder in candidates:
            if not source.lacking(folder):
                return folder
        if source.repository and hub_answers():
            return self._download(source)
        raise BenchError(self._absent(source, candidates[0] if own else None))

    def _absent(self, source: Source, own: Path | None) -> str:
        from huggingface_hub import constants

        lacking = next((each for each in map(source.lacking, filter(None, [own])) if each), source.files[0])
        what = f"no {lacking} of {source.repository}" if source.repository else f"no {lacking}"
        place = str(own) if own else f"${FOLDER}/{self.name} ({FOLDER} is not set)"
        cache = f" or in the hub's cache {constants.HF_HUB_CACHE}, and the hub cannot be reached"
        where = f"in {place}" + (cache if source.repository else "")
        return f"model '{self.name}': {what} {where}; {self._gate(source)}{source.command(f'${FOLDER}/{self.name}')}"

    def _gate(self, source: Source) -> str:
        if not self.gated or source is not self.sources[0] or not source.repository:
            return ""
        return f"it is gated: accept the terms of {source.repository} on the hub and log in (hf auth login), then "

    def _download(self, source: Source) -> Path:
        from huggingface_hub import snapshot_download

        with hub(f"model '{self.name}', {source.repository}", self._gate(source) + source.command("")):
            names = [name.strip() for file in source.files for name in file.split("|")]
            folder = Path(snapshot_download(**_place(source), allow_patterns=names))
            if lacking := source.lacking(folder):
                raise BenchError(
                    f"model '{self.name}': the hub's {source.repository} has no {lacking}"
                    + (f" at revision {source.revision}" if source.revision else "")
                )
        return folder


def _place(source: Source) -> dict[str, Any]:
    kind = "dataset" if source.dataset else None
    return {"repo_id": source.repository, "repo_type": kind, "revision": source.revision}


def _cached(source: Source) -> list[Path]:
    """Return the folder of a repository in the hub's cache, if there is one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return [Path(snapshot_download(**_place(source), local_files_only=True))]
    except LocalEntryNotFoundError:
        return []


def published_names() -> list[str]:
    """Return the names of the shipped cards."""
    return sorted(path.stem for path in published_models_folder().glob("*.yaml"))


def is_published(name: str) -> bool:
    """Return whether a name is that of a shipped card, or the path of a card of the same keys."""
    if name.endswith((".yaml", ".yml")):
        return Path(name).is_file() and "sources" in read_yaml(Path(name))
    return (published_models_folder() / f"{name}.yaml").is_file()


def load_published(name_or_path: str, changes: Mapping[str, Any] | None = None) -> PublishedModel:
    """Load a shipped card by name, or any card by the path of its YAML file. changes: keys in place of the file's.

    Raises ``BenchError`` for a missing file and an invalid card (naming the key).
    """
    shipped = published_models_folder() / f"{name_or_path}.yaml"
    path = shipped if shipped.is_file() else find_config("model", name_or_path)
    card: PublishedModel = validated(
        PublishedModel, {"name": path.stem, **read_yaml(path), **(changes or {})}, str(path)
    )
    return card
