"""A process that uses tampered folders, watched from another."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

SILENCE = 300
"""Seconds after which a process that uses one folder hangs; kernels may have to be compiled."""


def assert_all_held(
    outcomes: list[dict[str, Any]],
    broken: Callable[[dict[str, Any]], str],
    kinds: tuple[str, str],
    cases: Callable[[str, int, int], None],
) -> None:
    """No outcome is broken; how many were refused and used is counted under two kinds."""
    wrong = [text for outcome in outcomes if (text := broken(outcome))]
    refused = sum(bool(outcome["error"]) for outcome in outcomes)
    cases(kinds[0], refused, refused - len(wrong))
    cases(kinds[1], len(outcomes) - refused, len(outcomes) - refused)
    assert not wrong, f"{len(wrong)} of {len(outcomes)}:\n" + "\n".join(wrong[:40])


def attack(folder: Path, out: Path, use: str, names: list[str]) -> list[dict[str, Any]]:
    """Outcomes of mutations; a process that dies or hangs is one, and the next goes on."""
    outcomes: list[dict[str, Any]] = []
    left = list(names)
    while left:
        begun, done = "", []
        with (out / "errors.txt").open("w+") as errors:
            process = subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).with_name("tampering.py")),
                    str(folder),
                    str(out),
                    use,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(left))
            process.stdin.close()
            watch = threading.Timer(SILENCE, process.kill)
            watch.start()
            for line in process.stdout:
                watch.cancel()
                watch = threading.Timer(SILENCE, process.kill)
                watch.start()
                said = json.loads(line)
                begun = said.get("begin", begun)
                done += [said] if "done" in said else []
            code = process.wait()
            watch.cancel()
            process.stdout.close()
        outcomes += done
        finished = {outcome["done"] for outcome in done}
        told = (out / "errors.txt").read_text()[-600:]
        if code and begun not in finished:
            outcomes.append({"done": begun, "file": "", "error": f"exit {code}", "message": told})
            finished.add(begun)
        assert finished, f"nothing was used: exit {code}, {told}"
        left = [name for name in left if name not in finished]
    return outcomes
