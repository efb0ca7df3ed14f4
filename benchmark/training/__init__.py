"""The training of one cell: the loop, schedules, checkpoints, accumulation, and what it costs."""
