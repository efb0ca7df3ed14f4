"""What `bench tune` found for a method, laid over a configuration."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.common.errors import BenchError
from benchmark.config.schema import RunConfig
from benchmark.method import METHODS
from benchmark.store.hashing import digest

if TYPE_CHECKING:
    pass


def settings_of(config: RunConfig, method: str) -> dict[str, Any]:
    """What was found for a method under this model, data and budget. Raises ``BenchError`` when nothing was."""
    path = settings_file(config, Path(config.tuned or "tuning"), method)
    if not path.is_file():
        raise BenchError(
            f"--tuned: nothing was found yet for method '{method}' with these options, this model, data and budget; "
            f"first run bench tune --methods {method} with the same options"
        )
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
    return settings


def settings_file(config: RunConfig, folder: Path, method: str) -> Path:
    """Named by all that the best settings depend on: the method's formula and options, training, model and data; not by
    the learning rate, which is always searched.
    """
    from benchmark.plan.resolve import method_options
    from benchmark.store.hashing import source_of

    own = {"source": source_of(METHODS[method]), "options": method_options(method, config.options.get(method, {}))}
    training = config.training.model_dump(mode="json", exclude={"learning_rate", "checkpoint_every", "validations"})
    model = {"model": config.model, "options": config.model_options}
    checkpoint = config.evaluation.checkpoint
    data = {"pretraining": config.pretraining, "checkpoint": checkpoint}
    key = digest({"training": training, **data, **model, "method": own})
    return folder / f"{method}-{key}.json"


def tuned(config: RunConfig, method: str) -> RunConfig:
    """The configuration with what `bench tune` found for a method over it; raises ``BenchError`` when it found none, or
    something else than the command line asks for.
    """

    settings = settings_of(config, method)
    for name in settings.keys() & config.overrides.keys():
        raise BenchError(
            f"--tuned: bench tune found {name}={settings[name]} for method '{method}', and --set gives "
            f"{config.overrides[name]}; leave one of the two out"
        )
    found = config.at(settings)
    return found.model_copy(update={"overrides": config.overrides | {"training": "tuned"}, "grid": config.grid})
