"""Print how often gradient checkers are wrong: xpnet's and its peers', on a zoo of right and wrong layers.

    python tests/measure_checkers.py                      everything that is installed; many minutes
    python tests/measure_checkers.py --only xpnet         xpnet on NumPy; some minutes
    python tests/measure_checkers.py --only xpnet --part 1/8 --json first.json
    python tests/measure_checkers.py --read first.json second.json

A false alarm is a right version that does not pass, a miss is a wrong one that does; an exception is a refusal. A wrong
version counts if its effect, the largest error of a gradient beside its largest entry, is well above rounding. The
program is not among the examples because the zoo belongs to the tests; test_zoo.py runs a part of it.
"""

import argparse
import json
import os
import platform
import sys
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import zoo  # noqa: E402
from zoo.contenders import CONTENDERS, verdict  # noqa: E402

DTYPES = ("float64", "float32")


def results(options):
    """Yield a row for every contender, dtype and case: what should be, what was said, why, and how long it took."""
    chosen = [case for seed in options.seed for case in zoo.cases(seed, tuple(options.sets), options.plants)]
    part, parts = options.part
    chosen = [case for i, case in enumerate(chosen) if i % parts == part - 1 and options.match in case.name]
    effects = {case: zoo.effect(case) if case.wrong else None for case in chosen}
    for name in options.only:
        contender = CONTENDERS[name]
        for dtype in (d for d in options.dtypes if d in contender.dtypes):
            for case in (c for c in chosen if dtype in c.dtypes):
                if case.wrong and not effects[case] >= zoo.tells(case, dtype):
                    continue
                start = perf_counter()
                passed, told, reason = verdict(contender, case, dtype)
                yield {
                    "contender": name, "dtype": dtype, "set": case.set, "case": case.name, "wrong": bool(case.wrong),
                    "later": case.later, "effect": effects[case], "passed": passed, "told": told, "reason": reason,
                    "ms": 1000 * (perf_counter() - start),
                }  # fmt: skip


def counts(rows):
    """Return the cells of a line: right, false alarms, of them not told; wrong, missed, the largest effect of those."""
    right = [row for row in rows if not row["wrong"]]
    wrong = [row for row in rows if row["wrong"]]
    alarms = [row for row in right if not row["passed"]]
    missed = [row for row in wrong if row["passed"]]
    untold = sum(not row["told"] for row in alarms)
    return [
        len(right), f"{len(alarms)} ({untold})" if untold else len(alarms), len(wrong), len(missed),
        f"{max(row['effect'] for row in missed):.0e}" if missed else "",
    ]  # fmt: skip


HEADS = ["right", "false alarms", "wrong", "missed", "largest effect missed"]


def table(rows, keys):
    """Print counts of ``rows`` by ``keys``, as Markdown."""
    lines = {}
    for row in rows:
        lines.setdefault(tuple(row[key] for key in keys), []).append(row)
    print(f"\n| {' | '.join([*keys, *HEADS, 'median ms'])} |\n|{'---|' * len(keys)}{'--:|' * (len(HEADS) + 1)}")
    for key, found in lines.items():
        cells = [*key, *counts(found), f"{median(row['ms'] for row in found):.3g}"]
        print(f"| {' | '.join(map(str, cells))} |")


def report(rows, listed):
    """Print the tables and every false alarm and miss by name."""
    effects = [row["effect"] for row in rows if row["wrong"]]
    if effects:
        print(f"\nThe smallest effect of a wrong version that was counted: {min(effects):.1e} of the largest entry.")
    print("In brackets: of the false alarms, those that failed no entry but said that they cannot tell.")
    table(rows, ["contender", "dtype", "set"])
    parts = {
        "Without scaled inputs:": [row for row in rows if row["set"] != "scaled"],
        "Of them, mistakes that show at the first call already:": [
            row for row in rows if row["set"] != "scaled" and row["wrong"] and not row["later"]
        ],
        "Scaled inputs:": [row for row in rows if row["set"] == "scaled"],
    }
    for title, some in parts.items():
        print(f"\n{title}")
        table(some, ["contender", "dtype"])
    if not listed:
        return
    for wrong, title in ((False, "False alarms"), (True, "Misses")):
        found = [row for row in rows if row["wrong"] == wrong == row["passed"]]
        print(f"\n## {title}: {len(found)}\n")
        for row in found:
            effect = f" (effect {row['effect']:.1e})" if wrong else ""
            print(f"{row['contender']} {row['dtype']} {row['case']}{effect}: {row['reason']}")
        kinds = Counter(row["case"].split("/")[1].partition(" x ")[0] for row in found)
        print("by kind:", ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()))


def machine():
    """Return what a reader needs to know about where this was measured."""
    versions = {}
    for package in ("xpnet", "numpy", "torch", "jax", "scipy", "autograd"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"), "command": " ".join(sys.argv[1:]),
        "python": platform.python_version(), "processor": platform.machine(), "cores": os.cpu_count(), **versions,
    }  # fmt: skip


def part(text):
    """Return (1, 4) of "1/4"."""
    first, _, parts = text.partition("/")
    if not (first.isdigit() and parts.isdigit() and 1 <= int(first) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text} is no part such as 1/4")
    return int(first), int(parts)


def listing(allowed, given):
    """Return a function for argparse that takes some of ``allowed``, divided by commas; ``given`` turns each."""

    def read(text):
        found = [given(word) for word in text.split(",")]
        if unknown := [word for word in found if allowed and word not in allowed]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(map(str, allowed))}")
        return found

    return read


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usable = [name for name, contender in CONTENDERS.items() if not contender.absent()]
    parser.add_argument("--only", type=listing(CONTENDERS, str), default=usable, help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--sets", type=listing(zoo.SETS, str), default=zoo.SETS, help=f"of {', '.join(zoo.SETS)}")
    parser.add_argument("--dtypes", type=listing(DTYPES, str), default=DTYPES)
    parser.add_argument("--seed", type=listing(None, int), default=[0], help="of data and planted mistakes; 0,1,2")
    parser.add_argument("--plants", type=int, default=4, help="mistakes planted in each kind beside its own")
    parser.add_argument("--part", type=part, default=(1, 1), help="such as 1/4: every fourth case")
    parser.add_argument("--match", default="", help="only cases whose name holds this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every result there")
    parser.add_argument("--read", type=Path, nargs="+", metavar="FILE", help="print the table of such files instead")
    parser.add_argument("--brief", action="store_true", help="no list of false alarms and misses")
    options = parser.parse_args()
    if options.read:
        rows = [row for file in options.read for row in json.loads(file.read_text())["results"]]
        return report(rows, not options.brief)
    for name in options.only:
        if why := CONTENDERS[name].absent():
            parser.error(f"{name}: {why}")
    print(", ".join(f"{key} {value}" for key, value in machine().items() if value))
    rows = list(results(options))
    report(rows, not options.brief)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "results": rows}, indent=1))


if __name__ == "__main__":
    main()
