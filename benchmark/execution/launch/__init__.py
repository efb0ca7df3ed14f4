"""Launchers: how the cells of a run are spread over processes and machines. Importing this registers them."""

from benchmark.execution.launch import local as local
from benchmark.execution.launch import ray as ray
from benchmark.execution.launch import slurm as slurm
