"""Run the study and print the table of docs/statistics.md: python -m tests.simulation [SECTION ...]."""

import sys

from tests.simulation.study import Outcome, Setting, outcome, settings


def line(setting: Setting, found: Outcome) -> str:
    """Write a row of the table."""
    promised = "-" if setting.promised is None else "-".join(f"{100 * end:.0f}" for end in setting.promised)
    first, *others = [f"{100 * share:.1f}" for share in found.shares.values()]
    return f"| {setting.name} | {setting.repetitions} | {first} ± {100 * found.error:.1f} | {', '.join(others) or '-'} | {promised} |"


def main(chosen: list[str]) -> None:
    """Print the sections whose names begin with one of ``chosen``; default: all."""
    section = ""
    for setting in settings():
        if chosen and not setting.section.startswith(tuple(chosen)):
            continue
        found = outcome(setting)
        if setting.section != section:
            section = setting.section
            first, *others = found.shares
            print(
                f"\n| {section} | repetitions | {first} (%) | {', '.join(others) or '-'} (%) | promised |\n|---|---:|---:|---:|---:|"
            )
        print(line(setting, found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
