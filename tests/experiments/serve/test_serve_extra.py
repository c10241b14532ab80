"""Serving where its packages are missing: a sentence names them and the extra."""

import pytest
from musicbox_experiments.serve import serve

from musicbox_env.errors import UserError


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        (("no_such_a",), "no_such_a is not installed"),
        (("no_such_a", "no_such_b"), "no_such_a, no_such_b are not installed"),
        (("json", "no_such_a"), "no_such_a is not installed"),
    ],
)
def test_packages_that_are_missing_are_named(packages, said, monkeypatch):
    monkeypatch.setattr(serve, "PACKAGES", packages)
    with pytest.raises(UserError, match=f"^{said}; serving needs"):
        serve.require_installed()
