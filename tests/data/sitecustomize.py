"""Python imports this first where its folder is on PYTHONPATH: in children of tests.

A script that they run is the real one, started as a person would, and knows nothing of
the small archives.
"""

import small_archives

small_archives.register()
