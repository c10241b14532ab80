"""Whatever the bytes of a source are: each row is accounted for, or the file is refused by name."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hostile import require_accounted, spoilt_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PARQUETS = str(Path(__file__).with_name("parquets.py"))
MAGIC = (b"", b"PK\x03\x04", b"PAR1", b"\x1f\x8b\x08\0", b"[{", b'{"a":', b"session_id,track_id\n")
UNBOUND = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


def attack(kind, contents, examples, cases):
    """Whatever is drawn is accounted for."""
    ends = Counter()

    @settings(max_examples=examples, **UNBOUND)
    @given(content=contents)
    def try_one(content):
        ends[require_accounted(content)] += 1

    try_one()
    for end, number in ends.items():
        cases(f"{kind}: {end}", number, number)


@pytest.mark.slow
def test_spoilt_files_of_every_format(cases):
    attack("spoilt sources", spoilt_files(), 2500, cases)


@pytest.mark.slow
def test_any_bytes(cases):
    begun = st.builds(bytes.__add__, st.sampled_from(MAGIC), st.binary(max_size=2000))
    attack("sources of any bytes", begun, 500, cases)


@pytest.mark.parametrize("number", [16, pytest.param(600, marks=pytest.mark.slow)])
def test_spoilt_parquet(number, tmp_path, cases):
    """Pages, footers and lies in them, in a process that a signal would end."""
    ends, left = [], list(range(number))
    while left:
        done = subprocess.run(
            [sys.executable, PARQUETS, str(tmp_path), *map(str, left)],
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        said = done.stdout.split()
        ends += said
        left = left[len(said) :]
        if done.returncode:
            assert left, done.stderr[-600:]
            ends.append(f"exit {done.returncode} at {left.pop(0)}: {done.stderr[-300:]}")
    broken = [end for end in ends if end not in ("read", "refused")]
    for end in ("read", "refused"):
        cases(f"spoilt Parquet: {end}", ends.count(end), ends.count(end))
    cases("spoilt Parquet: broken", len(broken), 0)
    assert not broken, "\n".join(broken[:20])
    assert len(ends) == number
