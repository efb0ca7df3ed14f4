"""Helpers independent of benchmarking: errors, progress, random streams, the hub, ranges, machine."""
