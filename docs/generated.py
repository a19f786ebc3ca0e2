"""Write the pages that are made of other files: figures that were measured, the path, and a list of public names."""

import contextlib
import inspect
import io
import json
import re
import shutil
import sys
from itertools import groupby
from pathlib import Path

import jupytext

import xpnet
from xpnet import parallel, plotting

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples"
CHAPTERS = (  # in the order of a reader; what is not among them comes behind
    *("functions", "losses", "derivatives", "gradients", "layers", "output_layers", "networks", "gradcheck"),
    *("training", "records", "datasets", "saving", "backend"),
)
API = """API
===

Everything public, by module, with what it says about itself. What is not listed here may change at any time. ``import
xpnet`` has all but what is in ``xpnet.plotting`` and ``xpnet.parallel``.
"""


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
    return "".join(f"- {line}\n" for line in known.splitlines()) + printed.getvalue()[len(known) :]


def heading(module):
    """Return the first line of what a module says about itself, as a heading."""
    line = inspect.getdoc(module).splitlines()[0].rstrip(".")
    return f"\n{line}\n{'-' * len(line)}\n\n"


def public_names():
    """Return as reStructuredText a section for each module that public names come from."""
    homes = {}
    for name in xpnet.__all__:
        homes.setdefault(getattr(xpnet, name).__module__.split(".")[1], []).append(name)
    text = API
    for home in sorted(homes, key=[*CHAPTERS, *homes].index):
        text += heading(getattr(xpnet, home)) + ".. currentmodule:: xpnet\n\n"
        for name in homes[home]:
            kind = "class" if inspect.isclass(getattr(xpnet, name)) else "function"
            text += f".. auto{kind}:: {name}\n" + ("   :members:\n" if kind == "class" else "")
    for module in (plotting, parallel):
        text += heading(module) + f".. automodule:: {module.__name__}\n   :members:\n"
    return text


def write():
    """Write the tables of docs/benchmark.md, docs/path.md, docs/changelog.md, notebooks and docs/api.rst."""
    parts = []
    for file in sorted((EXAMPLES / "results").glob("*.json")):
        measured = json.loads(file.read_text(encoding="utf-8"))
        if measured.keys() >= {"machine", "results"}:
            parts.append(f"## {measured['machine'].get('gpu') or measured['machine']['cpu']}\n\n{tables(measured)}")
    folder = DOCS / "_generated"
    folder.mkdir(exist_ok=True)
    (folder / "measured.md").write_text("\n".join(parts), encoding="utf-8")
    for script in (EXAMPLES / "notebooks").glob("*.py"):
        jupytext.write(jupytext.read(script), folder / f"{script.stem}.ipynb")
    (DOCS / "api.rst").write_text(public_names(), encoding="utf-8")
    path = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    path = path.replace('src="pictures/', 'src="../examples/pictures/')
    path = re.sub(r"(?m)^(### .*: )`(ch\w+)\.py`$", r"\1[`\2.py`](gallery/\2.rst)", path)
    (DOCS / "path.md").write_text(path, encoding="utf-8")
    shutil.copy(DOCS.parent / "CHANGELOG.md", DOCS / "changelog.md")
