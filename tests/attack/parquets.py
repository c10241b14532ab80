"""Spoilt Parquet files: ``python parquets.py FOLDER NUMBER...`` ingests one for each number.

It prints "read" or "refused" after each; whatever else happens is an exception, or a signal.
"""

import io
import random
import sys
import tempfile
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))
from hostile import LOG, require_accounted

FORMS = (
    {"compression": "none"},
    {"compression": "snappy", "data_page_version": "2.0"},
    {"compression": "zstd", "use_dictionary": False},
    {"compression": "gzip", "version": "1.0"},
    {"compression": "none", "use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
    {"compression": "none", "write_page_checksum": True, "data_page_size": 200},
)
WORDS = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80\x80\x80\x80\x08",
    b"\xfe\xff\xff\xff\x0f",
    b"\x1c",
    b"\x19",
)
"""Single bytes, varints of 2**31, and beginnings of structures and lists."""


@cache
def whole(form: int) -> bytes:
    table = pa.Table.from_pandas(LOG, preserve_index=False)
    options = dict(FORMS[form])
    encoding = options.pop("column_encoding", None)
    if encoding:
        texts = [f.name for f in table.schema if pa.types.is_string(f.type)]
        options["column_encoding"] = dict.fromkeys(texts, encoding)
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=40, **options)
    return file.getvalue()


def spoilt(number: int) -> bytes:
    """A whole file with one to three things changed, often in its footer."""
    rng = random.Random(number)
    content = bytearray(whole(number % len(FORMS)))
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for _ in range(rng.choice((1, 1, 2, 3))):
        first, last = rng.choice(((4, footer), (footer, len(content)), (footer, len(content))))
        place = rng.randrange(min(first, len(content) - 1), max(len(content), 1))
        place = min(place, last - 1, len(content) - 1)
        how = rng.choice(("flip", "flip", "word", "word", "cut", "drop", "length"))
        if how == "flip":
            content[place] ^= 1 << rng.randrange(8)
        elif how == "word":
            word = rng.choice(WORDS)
            content[place : place + len(word)] = word
        elif how == "cut":
            del content[place : len(content) - rng.choice((0, 8))]
        elif how == "drop":
            del content[place : place + rng.choice((1, 7, 90))]
        else:
            content[-8:-4] = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, place)).to_bytes(4, "little")
        if len(content) < 12:
            break
    return bytes(content)


def main(folder: Path, numbers: list[int]) -> None:
    tempfile.tempdir = str(folder)
    for number in numbers:
        print(require_accounted(spoilt(number)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(number) for number in sys.argv[2:]])
