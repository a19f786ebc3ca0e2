"""Write what pages are made of: the figures in examples/results, as benchmark.py itself prints them, and the path."""

import contextlib
import io
import json
import sys
from itertools import groupby
from pathlib import Path

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples"


def tables(measured):
    """Return as Markdown the report of one machine: {"machine": …, "results": […]}."""
    sys.path.insert(0, str(EXAMPLES))
    from benchmark_report import Report

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        report = Report(measured["machine"])
        known = printed.getvalue()
        for (part, work), group in groupby(measured["results"], key=lambda row: (row["part"], row["work"])):
            rows = list(group)
            if "bytes" in rows[0]:
                report.memory(part, work, rows[0]["bytes"], rows[0]["result bytes"])
            elif "hidden" in rows[0]:
                sizes = groupby(rows, key=lambda row: (row["hidden"], row["batch"]))
                report.grid(part, work, {size: {row["contender"]: row for row in of_size} for size, of_size in sizes})
            else:
                report.table(part, work, {row["contender"]: row for row in rows}, ratios=part != "d")
    return "".join(f"- {line}\n" for line in known.splitlines()) + printed.getvalue()[len(known):]


def write():
    """Write the tables of docs/benchmark.md, and the page docs/path.md."""
    parts = []
    for file in sorted((EXAMPLES / "results").glob("*.json")):
        measured = json.loads(file.read_text(encoding="utf-8"))
        if measured.keys() >= {"machine", "results"}:
            parts.append(f"## {measured['machine'].get('gpu') or measured['machine']['cpu']}\n\n{tables(measured)}")
    folder = DOCS / "_generated"
    folder.mkdir(exist_ok=True)
    (folder / "measured.md").write_text("\n".join(parts), encoding="utf-8")
    path = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    path = path.replace('src="pictures/', 'src="../examples/pictures/')
    (DOCS / "path.md").write_text(path, encoding="utf-8")
