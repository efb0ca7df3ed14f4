"""The metrics, for tasks: ``benchmark.evaluation.metrics`` under its public name."""

from benchmark.evaluation.metrics import *  # noqa: F403
