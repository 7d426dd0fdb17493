"""The table of the interop tests: client, version, direction, cases, failures.

Each theme left its rows in BUILD/tests/interop/results; the table goes to BUILD/tests/interop/table.txt. Fails
when there are no rows, or one that stands for no case: then something did not run.
"""

import argparse
import json
import sys
from pathlib import Path

HEAD = ("client", "version", "direction", "cases", "failures")


def lines(rows):
    table = [HEAD, *[tuple(map(str, row)) for row in rows]]
    wide = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
    for row in table:
        text = [cell.ljust(width) for cell, width in zip(row[:3], wide)]
        yield "  ".join(text + [cell.rjust(width) for cell, width in zip(row[3:], wide[3:])])


parser = argparse.ArgumentParser()
parser.add_argument("--build-dir", required=True, type=Path)
folder = parser.parse_args().build_dir / "tests/interop"
rows = sorted(row for file in (folder / "results").glob("*.json") for row in json.loads(file.read_text()))
if not rows:
    sys.exit("no results")
total = ["total", "", "", sum(row[3] for row in rows), sum(row[4] for row in rows)]
text = "\n".join(lines([*rows, total])) + "\n"
(folder / "table.txt").write_text(text)
print(text, end="")
empty = [" ".join(row[:3]) for row in rows if row[3] == 0]
sys.exit("ran no case: " + ", ".join(empty) if empty else 0)
