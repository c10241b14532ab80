"""What a library's threads print is kept apart from a command's own output."""

import sys
import threading
from contextlib import redirect_stdout

from musicbox_experiments.cluster.apart import OutputOfThisThread


def test_other_threads_print_to_standard_error(capsys):
    with redirect_stdout(OutputOfThisThread(sys.stdout)):
        print("a table")
        thread = threading.Thread(target=print, args=["a node is lost"])
        thread.start()
        thread.join()
    assert capsys.readouterr() == ("a table\n", "a node is lost\n")
