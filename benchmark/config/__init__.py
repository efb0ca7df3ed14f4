"""The run configuration: its schema, YAML files, and the command line's overrides. Imports no torch."""
