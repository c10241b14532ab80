import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_documents_name_exists():
    text = (ROOT / "docs" / "first_musicbox.md").read_text()
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", text)
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


def test_the_readme_points_at_files_that_exist():
    text = (ROOT / "README.md").read_text()
    assert "@@" not in text
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
