"""Whatever the bytes of a source are: each row is accounted for, or the file is refused by name."""

import pytest
from hostile import require_accounted, spoilt_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MAGIC = (b"", b"PK\x03\x04", b"PAR1", b"\x1f\x8b\x08\0", b"[{", b'{"a":', b"session_id,track_id\n")
UNBOUND = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.mark.slow
@settings(max_examples=2500, **UNBOUND)
@given(content=spoilt_files())
def test_spoilt_files_of_every_format(content):
    require_accounted(content)


@pytest.mark.slow
@settings(max_examples=500, **UNBOUND)
@given(magic=st.sampled_from(MAGIC), content=st.binary(max_size=2000))
def test_any_bytes(magic, content):
    require_accounted(magic + content)
