"""Upload an exported folder to the Hugging Face hub."""

import re
from pathlib import Path

from benchmark.common.errors import BenchError
from benchmark.common.hub import hub_answers, one_line

CARD = "README.md"
PUSHED = [CARD, "*.json", "*.safetensors", "tokenizer/*"]
"""The files that are uploaded, as patterns: what bench export writes, and nothing else that may lie beside."""


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Upload a folder of bench export to a model repository, which is created if it does not exist; return its address.

    repository: USER/NAME. private: whether a new repository is.
    Raises ``BenchError`` if the folder has no model card or weights, for an invalid name, without network, without a
    token, and if the hub refuses.
    """
    from huggingface_hub import HfApi, constants, get_token

    for pattern, what in ((CARD, "model card"), ("*.safetensors", "weights")):
        if not next(folder.glob(pattern), None):
            raise BenchError(f"{folder}: no {what} ({pattern}); write the folder with bench export")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repository, re.ASCII):
        raise BenchError(f"--repo {repository}: expected USER/NAME of letters, digits, '-', '_' and '.'")
    if constants.HF_HUB_OFFLINE or not hub_answers():
        raise BenchError(f"{constants.ENDPOINT} cannot be reached; nothing was uploaded")
    if get_token() is None:
        raise BenchError("no token for the hub: run `hf auth login` or set HF_TOKEN; nothing was uploaded")
    api = HfApi()
    try:
        created = api.create_repo(repository, private=private, repo_type="model", exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            repo_type="model",
            commit_message="Upload by bench push",
            allow_patterns=PUSHED,
        )
    except Exception as error:
        raise BenchError(f"{repository}: the hub refused: {one_line(error)}") from error
    return str(created)
