"""Damaged, hostile and very large archives of histories."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from make_histories import archive_files, extended_records, make_history, write_folder, write_zip
from make_logs import passed_over
from read_histories import agreement, run

from musicbox_env.ingest import json_tables as jsontables


def test_a_corrupt_file_among_good_ones_is_named_and_passed_over(tmp_path, history):
    files = {f"{i}.json": json.dumps(extended_records(history)) for i in range(3)}
    whole = files["1.json"]
    files["1.json"] = whole[: len(whole) // 2] + "\0\1garbage" + whole[len(whole) // 2 :]
    source = write_folder(files, tmp_path / "x")
    with pytest.raises(ValueError, match="damaged JSON"):
        run(tmp_path, source)
    assert not (tmp_path / "out").exists()
    dataset = run(tmp_path, source, max_rejects=0.25)
    assert agreement(dataset, history)[0] == 1
    (note,) = [n for n in dataset.about["history"]["notes"] if "damaged" in n]
    record = int(re.search(r"1\.json is damaged behind record ([\d,]+)", note)[1].replace(",", ""))
    assert record == pytest.approx(len(history.plays) / 2, rel=0.1)
    lost = int(re.search(r"about ([\d,]+) more are lost", note)[1].replace(",", ""))
    assert dataset.about["rejected"]["rows"] == 1
    rows = dict(dataset.about["history"]["rows"])
    assert rows.pop("read") == sum(rows.values())
    assert lost == pytest.approx(len(history.plays) - record, rel=0.1)
    rejects = pd.read_csv(dataset.folder / "rejects.csv")
    assert rejects["file"].tolist() == ["1.json"]
    assert rejects["line"].tolist() == [record + 1]


def test_ruins_of_every_kind(tmp_path, history):
    """Cut in the first record, in a zip too; emptied; of zeros: named, and the rest is read."""
    good = json.dumps(extended_records(history))
    files = {"good.json": good, "ruin.json": good[:200], "empty.json": "", "zeros.json": b"\0" * 99}
    files["brackets.json"] = "[" * 300_000
    dataset = run(tmp_path, write_zip(files, tmp_path / "x.zip"))
    assert agreement(dataset, history)[0] == 1
    notes = "\n".join(dataset.about["history"]["notes"])
    assert "ruin.json is damaged behind record 0; nothing behind it is read, and how many" in notes
    assert "about 0" not in notes
    named = {Path(name).name for name in list(passed_over(dataset))}
    assert named == {"ruin.json", "empty.json", "zeros.json", "brackets.json", "ReadMeFirst.pdf"}
    folder = write_folder(files, tmp_path / "loose")
    with pytest.raises(ValueError, match=r"empty\.json: is empty"):
        run(tmp_path, folder / "good.json", folder / "empty.json", out="b")


def test_archive_members_go_nowhere(tmp_path, history):
    work = tmp_path / "deep/work"
    work.mkdir(parents=True)
    with zipfile.ZipFile(work / "evil.zip", "w") as archive:
        for i, (name, content) in enumerate(archive_files(history).items()):
            archive.writestr(f"{'../' * i}../{name}", content)
    dataset = run(work, work / "evil.zip")
    assert agreement(dataset, history)[0] == 1
    assert not list(tmp_path.rglob("*.json.json")) + list(tmp_path.rglob("Streaming*"))


def test_a_zip_bomb_is_refused(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb,
        bomb.open("endsong_0.json", "w") as member,
    ):
        member.write(b'[{"ts": "2022-01-01T00:00:00Z", "ms_played": 1}')
        for _ in range(100):
            member.write(b" " * (1 << 20))
    assert (tmp_path / "bomb.zip").stat().st_size < 1 << 20
    with pytest.raises(ValueError, match="unpacks to 104,857"):
        run(tmp_path, tmp_path / "bomb.zip")


def test_a_record_without_end_is_not_read_on(tmp_path, monkeypatch, history):
    monkeypatch.setattr(jsontables, "MAX_RECORD_BYTES", 1 << 20)
    good = json.dumps(extended_records(history))
    endless = good[:-1] + ', {"ts": "' + "x" * (3 << 20) + '"}]'
    write_folder({"good.json": endless}, tmp_path / "x")
    dataset = run(tmp_path, tmp_path / "x", max_rejects=0.9)
    assert agreement(dataset, history)[0] == 1
    assert "damaged" in dataset.about["history"]["notes"][0]


MEASURE = """
import resource, sys
from pathlib import Path
from musicbox_env.ingest.pipeline import IngestConfig, ingest
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ingest(IngestConfig((sys.argv[1],), Path(sys.argv[2]), embeddings=False, progress=False))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_two_gigabytes_of_json_in_half_a_gigabyte(tmp_path):
    """A block of records, and a sixteenth of the plays, 61 bytes each, since many listen."""
    record_text = json.dumps(
        [
            {**record, "username": "NAME"}
            for record in extended_records(make_history(80, tracks=200))
        ]
    )[1:-1]
    file = tmp_path / "endsong_0.json"
    size = copy = 0
    with file.open("w") as out:
        size += out.write("[")
        while size < 2 << 30:
            year = f'"20{22 + copy // 64:02d}-'
            text = record_text.replace('"2021-', year).replace("NAME", f"u{copy % 64}")
            size += out.write(f",{text}" if copy else text)
            copy += 1
        out.write("]")
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, str(file), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )
    assert int(process.stdout) < 512 * 1024
