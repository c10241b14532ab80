"""The ``musicbox`` command: training, evaluation, statistics, reports."""

import os

# Trainings run side by side, one a core, and small matrices gain nothing from a second thread:
# two busy BLAS threads on a shared machine can be a hundred times slower than one.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
