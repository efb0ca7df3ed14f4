import os
from pathlib import Path

import pytest

PACK = Path(os.environ.get("BENCH_DATA") or Path(__file__).parents[2] / "shared" / "data").absolute()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Nothing of a test ends up in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("BENCH_DATA", raising=False)
        yield


@pytest.fixture
def pack(monkeypatch):
    """The folder of the real data that the cards in tests/cards describe."""
    if not (PACK / "pretrain" / "slake_captions.jsonl").is_file():
        pytest.skip("the real data are not there: set BENCH_DATA to their folder")
    monkeypatch.setenv("BENCH_DATA", str(PACK))
    return PACK
