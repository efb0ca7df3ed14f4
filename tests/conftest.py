import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures, and with them torch, but not in a process that only deals out tests to others (xdist)."""
    deals_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not deals_out:
        config.pluginmanager.import_plugin("tests.fixtures")
