"""The environment of all tests, set before any library that reads it is imported."""

import json
import os
import tempfile
from pathlib import Path

# What pytest-xdist starts inherits what the first process made of the environment, and
# in CAME_AS how it came.
CAME = json.loads(os.environ.setdefault("CAME_AS", json.dumps(dict(os.environ))))
# Children that work on the real data find it as this process would have.
REAL_DATA = CAME | {
    "JAX_PLATFORMS": "cpu",
    "MPLBACKEND": "agg",
    # What JAX compiled is kept, for all processes and for the next time, since many
    # tests compile the same. A limit makes JAX lock the folder: without one, it would
    # read files that another process has not written whole.
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parents[1] / ".jax_cache"),
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**30),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
}
# This process, and children that ask for it, get a folder with small data.
SMALL_DATA_DIR = tempfile.TemporaryDirectory()
os.environ |= REAL_DATA | {"TFDS_DATA_DIR": SMALL_DATA_DIR.name}
