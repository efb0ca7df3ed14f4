"""Apply the settings that `bench tune` found for a method to a configuration."""

import json
from pathlib import Path
from typing import Any

from benchmark.common.errors import BenchError
from benchmark.config.schema import RunConfig
from benchmark.plan.plan import settings_content
from benchmark.plan.resolve import method_options, resolve_model
from benchmark.store.hashing import digest


def tuned(config: RunConfig, method: str) -> RunConfig:
    """Apply the settings that `bench tune` found for a method to a configuration.

    Raises ``BenchError`` if there are none, and if the command line also sets one of them.
    """
    settings = settings_of(config, method)
    for name in settings.keys() & config.overrides.keys():
        raise BenchError(
            f"--tuned: bench tune found {name}={settings[name]} for method '{method}', but --set gives "
            f"{config.overrides[name]}; drop either --tuned or that --set"
        )
    with_settings = config.at(settings)
    overrides = config.overrides | {"training": "tuned"}
    return with_settings.model_copy(update={"overrides": overrides, "grid": config.grid})


def settings_of(config: RunConfig, method: str) -> dict[str, Any]:
    """Return the settings that `bench tune` found for a method with this model, data and budget.

    Raises ``BenchError`` if there are none.
    """
    path = settings_file(config, Path(config.tuned or "tuning"), method)
    if not path.is_file():
        raise BenchError(
            f"--tuned: no settings yet for method '{method}' with this suite, model, pretraining data, budget, "
            f"training settings and method options; run bench tune --methods {method} with the same ones first"
        )
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
    return settings


def settings_file(config: RunConfig, folder: Path, method: str) -> Path:
    """Return the file of a method's tuned settings, named by the hash of everything that they are specific to."""
    options = method_options(method, config.options.get(method, {}))
    content = settings_content(method, options, resolve_model(config), config)
    return folder / f"{method}-{digest(content)}.json"
