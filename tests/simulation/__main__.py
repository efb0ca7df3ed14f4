"""Run the study and print the tables of docs/statistics.md: python -m tests.simulation [SECTION ...]."""

import sys

from tests.simulation.study import Outcome, Setting, outcome, settings


def line(setting: Setting, found: Outcome) -> str:
    """Write a row of a table."""
    first, *others = [f"{100 * share:.1f}" for share in found.shares.values()]
    cells = [setting.name, f"{setting.repetitions}", f"{first} ± {100 * found.error:.1f}", *others]
    return f"| {' | '.join([*cells, promise(setting)])} |"


def promise(setting: Setting) -> str:
    """Write the range that a setting promises."""
    return "-" if setting.promised is None else "-".join(f"{100 * end:.0f}" for end in setting.promised)


def main(chosen: list[str]) -> None:
    """Print the sections whose names begin with one of ``chosen``; default: all."""
    section = ""
    for setting in settings():
        if chosen and not setting.section.startswith(tuple(chosen)):
            continue
        found = outcome(setting)
        if setting.section != section:
            section = setting.section
            print(f"\n| {' | '.join([section, 'repetitions', *found.shares, 'promised'])} |")
            print(f"|---|{'---:|' * (len(found.shares) + 2)}")
        print(line(setting, found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
