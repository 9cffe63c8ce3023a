"""One thread a test process: on a machine that is busy, two threads that wait for each other are many times slower."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
