import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_documents_name_exists():
    text = (ROOT / "docs" / "first_musicbox.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_pages_point_at_files_that_exist(page):
    text = page.read_text()
    assert "@@" not in text
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
