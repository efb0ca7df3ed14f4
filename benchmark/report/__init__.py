"""The report: turns the store's rows into sections with tables and charts."""
