"""A process that serves the index named in its argument over stdio, with toys."""

import sys

from sightline import Library
from sightline.integrations.mcp import run
from tests.cli.toys import Judge, Seeing

if __name__ == "__main__":
    with Library.open(sys.argv[1], embedder=Seeing(model="toy"), reranker=Judge()) as library:
        run(library)
