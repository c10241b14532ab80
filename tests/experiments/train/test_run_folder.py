"""What a command says of a run that is there when it begins."""

from dataclasses import dataclass, field

import pytest
from musicbox_experiments.data.sources import Source
from musicbox_experiments.train.folder import prepared_folder


@dataclass
class Options:
    out: str = "run"
    source: Source = field(default_factory=Source)
    listener: str | None = None


def test_only_a_run_with_work_is_gone_on_with(tmp_path, capsys):
    """A command that stopped before its first task left its options alone."""
    run = tmp_path / "run"
    for _ in range(2):
        with prepared_folder(run, Options()):
            assert (run / "config.json").is_file()
        assert capsys.readouterr().out == ""
    (run / "agents").mkdir()
    with prepared_folder(run, Options()):
        assert capsys.readouterr().out.startswith(f"Going on with the run in {run}")


@pytest.mark.parametrize("made", [[], ["agents"]])
def test_a_run_that_fails_leaves_what_it_made_and_no_empty_folder(tmp_path, made):
    run = tmp_path / "run"

    def fail():
        with prepared_folder(run, Options()):
            for name in made:
                (run / name).mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert sorted(tmp_path.rglob("*")) == [
        run / name for name in [".", *made, "config.json"] if made
    ]
