"""What a command says of a run that is there when it begins."""

from dataclasses import dataclass

from musicbox_experiments.train.folder import prepare_folder


@dataclass
class Options:
    seeds: int = 1


def test_only_a_run_with_work_is_gone_on_with(tmp_path, capsys):
    """A command that stopped before its first task left its options alone."""
    for _ in range(2):
        prepare_folder(tmp_path / "run", Options())
        assert capsys.readouterr().out == ""
    (tmp_path / "run/agents").mkdir()
    prepare_folder(tmp_path / "run", Options())
    assert capsys.readouterr().out.startswith(f"Going on with the run in {tmp_path}")
