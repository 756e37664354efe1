"""Speed and memory of the whole chain, measured through its command line: `python -m research.bench`."""

import services  # noqa: F401  # sets up numeric libraries before anything loads them
