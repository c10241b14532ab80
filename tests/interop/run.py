"""Train each library of ``libraries.toml`` in an environment of its own; write docs/interop.md.

    python tests/interop/run.py --seeds 3 --only sb3 cleanrl

Environments lie in ``.interop/``, results in ``.interop/results.jsonl``: what is there is not made
again. Rows of what was not tried, or of more seeds, stay as they are.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / ".interop"
RESULTS = WORK / "results.jsonl"
PAGE = ROOT / "docs" / "interop.md"
BEGIN, END = "<!-- table: make interop -->", "<!-- end -->"
HEAD = (
    "| library | fewer skips, points | skipped | random | seeds | slates | versions |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


def new_environment(folder: Path, *arguments: str) -> Path:
    """The Python of a new environment, in which pip installed what the arguments say."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip_install(python, *arguments)
    return python


def pip_install(python: Path, *arguments: str) -> None:
    """Install into the environment of another Python."""
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", *arguments], check=True)


def python_of(library: str, about: dict) -> Path:
    """The Python of a library's environment, which is made if it is not there.

    ``without_dependencies`` of a library are installed although they ask for other versions.
    """
    folder = WORK / library
    if (folder / "made").exists():
        return folder / "bin" / "python"
    python = new_environment(folder, *about["install"], f"{ROOT}{about.get('extras', '')}")
    if apart := about.get("without_dependencies"):
        pip_install(python, "--no-deps", *apart)
    (folder / "made").touch()
    return python


def known() -> list[dict]:
    """Results of this and earlier calls."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [json.loads(line) for line in lines]


def run(library: str, about: dict, seeds: range) -> None:
    """Train what is missing of a library's runs, and note the results."""
    python = python_of(library, about)
    for line in about["runs"]:
        done = {r["seed"] for r in known() if r["run"] == line}
        missing = [str(seed) for seed in seeds if seed not in done]
        if not missing:
            continue
        words = [python, *shlex.split(line), "--seeds", *missing]
        with subprocess.Popen(words, cwd=HERE, stdout=subprocess.PIPE, text=True) as process:
            for said in process.stdout:
                if said.startswith("{"):
                    row = {"run": line, **json.loads(said)}
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)
        if process.returncode:
            raise SystemExit(f"{shlex.join(map(str, words))} failed.")


def interval(values: list[float]) -> str:
    """Mean and Student's 95 % interval over seeds, in percentage points."""
    mean, number = 100 * np.mean(values), len(values)
    if number < 2:
        return f"{mean:.1f}"
    half = 100 * np.std(values, ddof=1) / np.sqrt(number) * t.ppf(0.975, number - 1)
    return f"{mean:.1f} [{mean - half:.1f}, {mean + half:.1f}]"


def versions(about: dict) -> str:
    """What a library was tried with."""
    return ", ".join([*about.get("without_dependencies", ()), *about["install"]])


def gains(found: list[dict]) -> list[float]:
    """By how much seeds are skipped less than random."""
    return [r["random"] - r["skip_rate"] for r in found]


def row_of(found: list[dict], about: dict) -> str:
    """Markdown: the row of one run, from the results of its seeds."""
    skipped, random = (100 * np.mean([r[key] for r in found]) for key in ("skip_rate", "random"))
    return (
        f"| {found[0]['name']} | {interval(gains(found))} | {skipped:.1f} % | {random:.1f} % "
        f"| {len(found)} | {found[0]['steps']:,} | {versions(about)} |"
    )


def case_of(row: str) -> str:
    """The first cell of a row."""
    return row.split("|")[1].strip()


def seeds_of(row: str) -> int:
    """How many seeds a row of libraries is of."""
    return int(row.split("|")[5])


def rows_between(page: str, begin: str, head: Sequence[str], end: str) -> dict[str, str]:
    """Rows of the table between two marks of a page, by case."""
    shown = page.partition(begin)[2].partition(end)[0].strip().splitlines()[len(head) :]
    return {case_of(row): row for row in shown}


def merged(page: str, begin: str, head: Sequence[str], rows: list[str], end: str) -> str:
    """A page with new rows of the table between two marks, each in place of that of its case."""
    rows_of = rows_between(page, begin, head, end) | {case_of(row): row for row in rows}
    new = "\n".join([*head, *rows_of.values()])
    return f"{page.partition(begin)[0]}{begin}\n{new}\n{end}{page.partition(end)[2]}"


def main() -> None:
    """Run, and write the table into the page.

    Exits with 1 if what ran is no better than random on average of its seeds.
    """
    libraries = tomllib.loads((HERE / "libraries.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=libraries, default=list(libraries))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    rows, worse = [], []
    for library in given.only:
        about = libraries[library]
        run(library, about, range(given.seeds))
        for line in about["runs"]:
            found = [r for r in known() if r["run"] == line]
            rows.append(row_of(found, about))
            if np.mean(gains(found)) <= 0:
                worse.append(found[0]["name"])
    page = PAGE.read_text()
    shown = rows_between(page, BEGIN, HEAD, END)
    rows = [row for row in rows if seeds_of(row) >= seeds_of(shown.get(case_of(row), row))]
    PAGE.write_text(merged(page, BEGIN, HEAD, rows, END))
    if worse:
        raise SystemExit(f"No better than random: {', '.join(worse)}.")


if __name__ == "__main__":
    main()
