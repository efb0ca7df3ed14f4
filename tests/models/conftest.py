import json

import open_clip
import pytest

from tests.models.make import ARCHITECTURES


@pytest.fixture(scope="session", autouse=True)
def architectures(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make the small architectures known to open_clip."""
    folder = tmp_path_factory.mktemp("architectures")
    for name, config in ARCHITECTURES.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
