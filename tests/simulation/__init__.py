"""How often intervals cover the truth and tests err, by simulation: the table of docs/statistics.md."""
