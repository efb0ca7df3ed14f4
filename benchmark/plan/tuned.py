"""Apply the settings that `bench tune` found for an arm to a configuration."""

from pathlib import Path
from typing import Any

from benchmark.common.errors import BenchError
from benchmark.config.schema import RunConfig
from benchmark.plan.plan import settings_content
from benchmark.plan.resolve import arm_options, resolve_model
from benchmark.store.files import DamagedError, read_object
from benchmark.store.hashing import digest


def tuned(config: RunConfig, arm: str) -> RunConfig:
    """Apply the settings that `bench tune` found for an arm to a configuration.

    Raises ``BenchError`` if there are none, and if the command line also sets one of them.
    """
    settings = settings_of(config, arm)
    for name in settings.keys() & config.overrides.keys():
        raise BenchError(
            f"--tuned: bench tune found {name}={settings[name]} for arm '{arm}', but --set gives "
            f"{config.overrides[name]}; drop either --tuned or that --set"
        )
    with_settings = config.at(settings)
    overrides = config.overrides | {"training": "tuned"}
    return with_settings.model_copy(update={"overrides": overrides, "grid": config.grid})


def settings_of(config: RunConfig, arm: str) -> dict[str, Any]:
    """Return the settings that `bench tune` found for an arm with this model, data and budget.

    Raises ``BenchError`` if there are none.
    """
    path = settings_file(config, Path(config.tuned or "tuning"), arm)
    if not path.is_file():
        raise BenchError(
            f"--tuned: no settings yet for arm '{arm}' with this suite, model, pretraining data, budget, "
            f"training settings and method options; run bench tune --methods {arm} with the same ones first"
        )
    remedy = "remove it, and run the same bench tune again"
    settings = read_object(path, remedy).get("settings")
    if not isinstance(settings, dict):
        raise DamagedError(path, "is damaged: it has no settings", remedy)
    return settings


def settings_file(config: RunConfig, folder: Path, arm: str) -> Path:
    """Return the file of an arm's tuned settings, named by the hash of everything that they are specific to."""
    content = settings_content(config.arm(arm), arm_options(config, arm), resolve_model(config), config)
    return folder / f"{arm}-{digest(content)}.json"
