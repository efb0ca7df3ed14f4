"""Launchers: how the cells of a run are spread over processes and machines."""
