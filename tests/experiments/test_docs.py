import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from musicbox_experiments.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(ROOT / folder / "README.md" for folder in ("agents", "experiments")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
PATHS = os.pathsep.join(str(ROOT / folder) for folder in ("", "agents", "experiments"))


def anchors(page):
    """Names of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_test_that_the_documents_name_exists():
    text = (ROOT / "docs" / "first_musicbox.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_point_at_files_and_headings_that_exist(page):
    text = page.read_text()
    assert "@@" not in text
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", text):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_commands_that_exist(page):
    blocks = re.findall(r"^```\n(.*?)^```|`(musicbox [^`]*)`", page.read_text(), re.M | re.S)
    named = re.findall(r"^\s*musicbox ([a-z][a-z-]*)", "\n".join(map("".join, blocks)), re.M)
    assert set(named) <= set(COMMANDS)


def test_every_page_is_in_the_contents_of_the_site():
    listed = set(re.findall(r"^[\w/]+$", (ROOT / "docs/index.md").read_text(), re.M))
    pages = {str(p.relative_to(ROOT / "docs").with_suffix("")) for p in PAGES if "docs" in p.parts}
    assert pages - listed == {"index"}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_examples_of_extending_musicbox_run(synthetic_folder, tmp_path):
    page = (ROOT / "docs" / "extend.md").read_text()
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.M | re.S))
    env_id = '"MusicSession-v0"'
    file = tmp_path / "examples.py"
    file.write_text(code.replace(env_id, f"{env_id}, data={str(synthetic_folder)!r}"))
    subprocess.run([sys.executable, file], check=True, env={**os.environ, "PYTHONPATH": PATHS})


@pytest.mark.slow
def test_examples_of_other_libraries_run(synthetic_folder, tmp_path):
    page = (ROOT / "docs" / "environment.md").read_text()
    for code in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S):
        code = code.replace('Session-v0"', f'Session-v0", data={str(synthetic_folder)!r}')
        (tmp_path / "example.py").write_text(code.replace("learn(2_000)", "learn(200)"))
        example = [sys.executable, tmp_path / "example.py"]
        subprocess.run(example, check=True, env={**os.environ, "PYTHONPATH": PATHS})


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebooks_are_kept_without_outputs(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_executes_the_notebooks(tmp_path):
    pytest.importorskip("sphinx", reason="`make docs` installs what builds the site")
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", ROOT / "docs"]
    site = tmp_path / "site"
    subprocess.run([*sphinx, site], check=True, env={**os.environ, "PYTHONPATH": PATHS})
    for notebook in NOTEBOOKS:
        assert "cell_output" in (site / "notebooks" / f"{notebook.stem}.html").read_text()
