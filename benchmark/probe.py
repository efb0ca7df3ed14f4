"""The probes, for tasks: the modules of ``benchmark.evaluation`` for them under their public name."""

from benchmark.evaluation.logistic import *  # noqa: F403
from benchmark.evaluation.probe import *  # noqa: F403
from benchmark.evaluation.ridge import *  # noqa: F403
