"""Copies of dataset folders whose files a test may change."""

import json
import shutil
from pathlib import Path


def copy_to_alter(folder, to):
    """Copy a dataset folder; the copy states no fingerprints, so that its plays may be others."""
    shutil.copytree(folder, to)
    forget_identity(to)


def forget_identity(folder):
    """Let a dataset folder state no fingerprints."""
    file = Path(folder) / "dataset.json"
    about = json.loads(file.read_text())
    del about["identity"]
    file.write_text(json.dumps(about))
