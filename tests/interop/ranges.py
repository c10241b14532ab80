"""Run tests of the environment at both ends of the version ranges of setup.cfg.

    python tests/interop/ranges.py --only lowest gymnasium-1.2.2

Each case has an environment of its own under ``.interop/``, removed afterwards. Results go to
docs/interop.md; rows of cases that were not tried stay.
"""

import argparse
import configparser
import shutil
import subprocess
import sys

from run import PAGE, ROOT, WORK, merged, new_environment

TESTS = (
    "tests/env/test_env.py",
    "tests/env/test_rewards.py",
    "tests/env/test_rendering.py",
    "tests/env/test_locks.py",
    "tests/env/simulator",
)
TOOLS = ("pytest", "hypothesis", "pillow")
BEGIN, END = "<!-- table: make ranges -->", "<!-- end of ranges -->"
HEAD = ("| case | versions | tests |", "| --- | --- | --- |")


def lowest() -> list[str]:
    """The lowest version that setup.cfg allows of each package that the environment needs."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    needed = config["options"]["install_requires"].split()
    return [requirement.replace(">=", "==") for requirement in needed]


CASES = {
    "lowest": lowest(),
    "gymnasium-1.1": ["gymnasium==1.1.0"],
    "gymnasium-1.2.2": ["gymnasium==1.2.2"],
    "newest": [],
}


def tried(case: str, versions: list[str]) -> str:
    """Install a case, run the tests; a row of the table."""
    folder = WORK / case
    python = new_environment(folder, *versions, *TOOLS, str(ROOT))
    pip = [sys.executable, "-m", "pip", "--python", python, "list", "--format", "freeze"]
    listed = subprocess.run(pip, capture_output=True, text=True, check=True).stdout.split()
    tests = [python, "-m", "pytest", "-p", "no:cacheprovider", *TESTS]
    said = subprocess.run(tests, cwd=ROOT, capture_output=True, text=True, check=False)
    print(said.stdout[-3_000:], said.stderr[-1_000:], flush=True)
    shutil.rmtree(folder)
    names = {requirement.partition("=")[0] for requirement in lowest()}
    shown = [pinned for pinned in listed if pinned.partition("=")[0].lower() in names]
    return f"| {case} | {', '.join(shown)} | {said.stdout.strip().splitlines()[-1]} |"


def main() -> None:
    """Try the cases, and write the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    WORK.mkdir(exist_ok=True)
    rows = [tried(case, CASES[case]) for case in parser.parse_args().only]
    PAGE.write_text(merged(PAGE.read_text(), BEGIN, HEAD, rows, END))


if __name__ == "__main__":
    main()
