"""What a training reports of itself."""

import numpy as np
from musicbox_agents.progress import Progress


def test_nothing_gathered_is_nothing_to_report():
    """Sessions of one length end together: then a round has no songs."""
    told = []
    progress = Progress(lambda steps, metrics: told.append((steps, dict(metrics))), 10)
    progress.gather("kept", np.zeros(0))
    progress.gather("reward", [1.0, 3.0])
    assert progress.call(10, last=False)
    assert told == [(10, {"reward": 2.0})]
