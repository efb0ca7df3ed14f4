"""The table of recipes on the page about usage names every setting, with the default that it has."""

import re
from pathlib import Path

from benchmark.config.training import Recipe, Training

PAGE = (Path(__file__).parents[2] / "docs" / "usage.md").read_text(encoding="utf-8")


def test_the_table_of_recipes_is_complete() -> None:
    section = PAGE.split("\n## Recipes\n")[1].split("\n## ")[0]
    rows = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in section.splitlines() if line.startswith("| `")]
    named = [name for names, *_ in rows for name in re.findall(r"`(\w+)`", names)]
    assert sorted(named) == sorted([*Recipe.model_fields, "stages", "average"])
    defaults = {names.strip("`"): default for names, default, *_ in rows if "," not in names}
    for name, default in defaults.items():
        value = Training.model_fields[name].default
        if isinstance(value, float | int):
            assert float(default) == value, name
        elif isinstance(value, str):
            assert default == value, name
