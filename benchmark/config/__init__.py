"""The configuration of a run: its schema, its YAML files, the command line's overrides. Imports no torch."""
