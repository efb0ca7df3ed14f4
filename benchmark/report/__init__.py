"""From the rows of the store to a report: its sections, their tables and charts, and how these are written."""
