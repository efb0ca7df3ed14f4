"""A dataset on the Hugging Face hub: its commit, where that is cached, and its rows."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmark.common.errors import BenchError, unknown
from benchmark.common.hub import causes, client_failed, hub_answers, one_line
from benchmark.config.yaml_files import parse_yaml

if TYPE_CHECKING:
    import datasets

LOGIN = "log in with 'hf auth login' or set HF_TOKEN"


@dataclass
class HubDataset:
    """A dataset identified by its commit.

    ``datasets`` itself, when loading fails, falls back to whatever is cached, whichever revision that is.

    config, revision: None is the dataset's default. splits: those to read, by the dataset's own names.
    """

    name: str
    config: str | None
    revision: str | None
    streaming: bool
    splits: list[str]

    @cached_property
    def commit(self) -> str:
        """The commit that the revision stands for.

        It is looked up once, so rows and fingerprint belong to the same commit even if a branch moves meanwhile.
        Raises ``BenchError`` when the hub refuses, or when it cannot be reached and was never asked before.
        """
        reason = _unreachable() or self._ask()
        commit = self._last_commit()
        if not commit:
            raise self._absent(reason)
        return commit

    def is_cached(self) -> bool:
        """Whether the commit is cached, or for a stream whether it was opened before.

        This neither asks the hub nor imports ``datasets``.
        """
        commit = self._last_commit()
        try:
            return bool(commit) and (self._prepared(commit) is not None or (self.streaming and self._opened(commit)))
        except BenchError:
            return False

    def load(self, split: str) -> "datasets.Dataset":
        """Load the rows of a split, by its own name, from the cache or the hub.

        Raises ``BenchError`` when it cannot be loaded, and when the dataset is made by a script.
        """
        from datasets.packaged_modules.cache.cache import Cache

        try:
            if folder := self._prepared(self.commit):
                builder = Cache(
                    dataset_name=self.name.rpartition("/")[2],
                    repo_id=self.name,
                    config_name=folder.parts[-3],
                    version=folder.parts[-2],
                    hash=self.commit,
                )
                return self._split(builder, split, streaming=False)
            if reason := _unreachable():
                raise self._absent(reason)
            builder = self._builder()
            if not self.streaming:
                builder.download_and_prepare()
            return self._split(builder, split, self.streaming)
        except BenchError:
            raise
        except Exception as error:  # clients of the hub raise more than OSError
            raise self._failure(error) from error

    def _ask(self) -> str:
        """Ask the hub for the commit of the revision. Returns the reason if that failed, else an empty string."""
        from huggingface_hub import errors, hf_hub_download

        try:
            # Unlike other ways to ask, this one stores the answer in the hub's cache, for use without network.
            hf_hub_download(self.name, "README.md", repo_type="dataset", revision=self.revision)
        except errors.LocalEntryNotFoundError as error:
            return one_line(error.__cause__ or error)
        except errors.EntryNotFoundError:
            return ""  # the dataset has no README, but the hub answered
        except Exception as error:
            raise self._failure(error) from error
        return ""

    def _last_commit(self) -> str:
        """The commit that the hub last gave for the revision, or "" if it was never asked."""
        ref = self._cache / "refs" / (self.revision or "main")
        commit = ref.read_text().strip() if ref.is_file() else self.revision or ""
        return commit if re.fullmatch("[0-9a-f]{40}", commit) else ""

    @property
    def _cache(self) -> Path:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / f"datasets--{self.name.replace('/', '--')}"

    def _opened(self, commit: str) -> bool:
        return any((self._cache / kind / commit).is_dir() for kind in ("snapshots", ".no_exist"))

    def _prepared(self, commit: str) -> Path | None:
        """The folder in the cache of ``datasets`` that holds the commit, or None."""
        from huggingface_hub import constants

        cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets").expanduser()
        owner = self.name.rpartition("/")[0]
        # ``datasets`` spells the name by its own rules, but the commit identifies the folder.
        pattern = f"{owner}___*" if owner else "*"
        infos = cache.glob(f"{pattern}/{escape(self._config(commit))}/*/{commit}/dataset_info.json")
        return next((path.parent for path in infos), None)

    def _configs(self, commit: str) -> list[dict[str, Any]]:
        """Read the configurations from the head of README.md, as the hub writes them; none where it has none."""
        readme = self._cache / "snapshots" / commit / "README.md"
        where = f"dataset '{self.name}': README.md"
        try:
            text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        except (OSError, ValueError) as error:
            raise client_failed(f"{where} cannot be read: {one_line(error)}", error) from error
        head = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---", text, re.DOTALL)
        metadata = parse_yaml(head[1], where) if head else None
        configs = metadata.get("configs") or [] if isinstance(metadata, dict) else []
        if not isinstance(configs, list) or any(not isinstance(c, dict) or "config_name" not in c for c in configs):
            raise BenchError(f"{where}: configs: expected a list of mappings with a config_name")
        return configs

    def _config(self, commit: str) -> str:
        """The name of the configuration: the card's, or the default by the rules of ``datasets``."""
        known = {config["config_name"]: config for config in self._configs(commit)}
        if self.config:
            if known and self.config not in known:
                raise BenchError(f"dataset '{self.name}': {unknown('config', self.config, known)}")
            return self.config
        default = [
            name for name, config in known.items() if len(known) == 1 or name == "default" or config.get("default")
        ]
        if known and not default:
            raise BenchError(f"dataset '{self.name}': 'config' is missing; expected one of {', '.join(known)}")
        return default[0] if default else "default"

    def _builder(self) -> "datasets.DatasetBuilder":
        import datasets
        from huggingface_hub import file_exists

        script = f"{self.name.rpartition('/')[2]}.py"
        if file_exists(self.name, script, repo_type="dataset", revision=self.commit):
            raise BenchError(
                f"dataset '{self.name}': its rows come from a script, {script}, and code in a dataset is never run; if"
                " the hub has converted it to Parquet, set 'revision: refs/convert/parquet'"
            )
        with TemporaryDirectory() as empty:
            # With an empty cache, errors are not hidden by an older copy.
            datasets.load_dataset_builder(self.name, self.config, revision=self.commit, cache_dir=empty)
        builder = datasets.load_dataset_builder(self.name, self.config, revision=self.commit)
        if builder.hash != self.commit:
            folder = Path(self.name).absolute()
            other = f"the folder {folder}" if folder.exists() else f"commit {builder.hash}"
            raise BenchError(f"dataset '{self.name}': expected commit {self.commit}; found {other}")
        return builder

    def _split(self, builder: Any, split: str, streaming: bool) -> "datasets.Dataset":
        try:
            return builder.as_streaming_dataset(split) if streaming else builder.as_dataset(split)
        except ValueError as error:
            known = list(builder.as_streaming_dataset() if streaming else builder.info.splits)
            if split in known:
                raise
            raise BenchError(f"dataset '{self.name}': {unknown('split', split, known)}") from error

    @property
    def _title(self) -> str:
        return f"dataset '{self.name}', split{'s' * (len(self.splits) > 1)} {', '.join(map(repr, self.splits))}"

    def _absent(self, reason: str) -> BenchError:
        config = f"config '{self.config}' at " if self.config else ""
        return BenchError(
            f"{self._title}: neither in the local cache nor reachable ({reason}): load {config}revision"
            f" '{self.revision or 'main'}' once with network: bench data check CARD"
        )

    def _failure(self, error: Exception) -> BenchError:
        from huggingface_hub import constants, errors

        chain = list(causes(error))

        def is_a(kind: type[Exception]) -> bool:
            return any(isinstance(cause, kind) for cause in chain)

        if is_a(errors.RevisionNotFoundError):
            return BenchError(f"{self._title}: {unknown('revision', self.revision or 'main', self._revisions())}")
        if is_a(errors.GatedRepoError):
            page = f"{constants.ENDPOINT}/datasets/{self.name}"
            return BenchError(f"{self._title}: is gated: accept its terms on {page}, and {LOGIN}")
        if is_a(errors.RepositoryNotFoundError):
            return BenchError(f"{self._title}: unknown to {constants.ENDPOINT}, or private: check the name, or {LOGIN}")
        for cause in chain:
            if isinstance(cause, errors.HfHubHTTPError) and cause.response.status_code in (401, 403):
                return BenchError(f"{self._title}: the hub refuses access ({cause.response.status_code}): {LOGIN}")
        # The message of ``datasets`` itself often only says that something failed.
        return client_failed(f"{self._title}: cannot be loaded: {one_line(error.__cause__ or error)}", error)

    def _revisions(self) -> list[str]:
        """The branches and tags, or an empty list if the hub does not answer."""
        from huggingface_hub import list_repo_refs

        with suppress(Exception):
            refs = list_repo_refs(self.name, repo_type="dataset")
            return [ref.name for ref in (*refs.branches, *refs.tags)]
        return []


def _unreachable() -> str:
    """The reason why the hub cannot be asked, or "" if it can."""
    import datasets
    from huggingface_hub import constants

    if datasets.config.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set"
    return "" if hub_answers() else f"no answer from {constants.ENDPOINT}"
