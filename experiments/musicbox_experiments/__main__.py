"""``python -m musicbox_experiments COMMAND``: the ``musicbox`` command."""

from musicbox_experiments.cli import main

main()
