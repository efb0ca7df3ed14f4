"""The probes, for tasks: ``benchmark.evaluation.probe`` under its public name."""

from benchmark.evaluation.probe import *  # noqa: F403
