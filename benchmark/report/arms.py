"""What is compared: the settings that all lines share, and how each arm differs from the suite's settings."""

from collections.abc import Iterator

from benchmark.report.render import MISSING, Cell, Sentence, Table
from benchmark.report.results import Results, settings_of


def arms(results: Results) -> Iterator[Table | Sentence]:
    """State the shared settings of the command line, and tabulate the arms with a recipe of their own."""
    if results.shared:
        yield Sentence(f"All lines: {results.shared}.")
    rows = results.rows[~results.rows["baseline"]].drop_duplicates("line").set_index("line")
    # A line that was trained and not evaluated has costs alone.
    lines = [line for line in results.methods if line in rows.index]
    recipes = {}
    for line in lines:
        recipe = rows.loc[line].get("recipe")
        recipes[line] = dict(each.split("=", 1) for each in settings_of(recipe if isinstance(recipe, str) else ""))
    methods = rows["method"].to_dict()
    if not any(recipes.values()) and all(rows.loc[line, "arm"] == methods[line] for line in lines):
        return
    settings = list(dict.fromkeys(name for recipe in recipes.values() for name in recipe))
    columns = [name.removeprefix("training.") for name in settings]
    yield Table(
        "Arms",
        [("method", ""), *((name, "") for name in columns)],
        [
            (line, [Cell(methods[line]), *(Cell(recipe.get(name, MISSING)) for name in settings)])
            for line, recipe in recipes.items()
        ],
        [],
        f"How each arm differs from the suite's settings. {MISSING}: the suite's setting or the method's default.",
    )
