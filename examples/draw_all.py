"""Draw every picture of the path through chapters 4 and 5 into a folder: `python draw_all.py --save FOLDER`."""

import argparse
import subprocess
import sys
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path, default="pictures", metavar="FOLDER", help="for the PNGs (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="train for a moment only: to see that it runs")
    options = parser.parse_args()
    scripts = sorted(Path(__file__).parent.glob("ch[0-9]*.py"))
    for number, script in enumerate(scripts, start=1):
        print(f"{number} of {len(scripts)}: {script.name}", flush=True)
        command = [sys.executable, script, "--save", options.save, *(["--quick"] if options.quick else [])]
        try:
            status = subprocess.run(command, check=False).returncode
        except KeyboardInterrupt:
            return 130  # 128 + SIGINT, as shells expect
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
