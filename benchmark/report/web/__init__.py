"""The report as one self-contained page: tables, charts and galleries in index.html."""
