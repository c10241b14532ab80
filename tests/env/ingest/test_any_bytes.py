"""A fast sample of ``tests/attack/test_hostile_sources.py``."""

import pytest
from hostile import CONTENTS, WRAPPINGS, require_accounted, spoilt_files
from hypothesis import HealthCheck, given, settings


@pytest.mark.parametrize("wrapping", sorted(WRAPPINGS))
@pytest.mark.parametrize("content", sorted(CONTENTS))
def test_what_is_whole_is_read(content, wrapping):
    assert require_accounted(WRAPPINGS[wrapping](CONTENTS[content]())) == "read"


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(content=spoilt_files())
def test_what_is_spoilt_is_read_or_refused_by_name(content):
    require_accounted(content)
