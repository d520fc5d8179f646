"""How fast are items embedded? Sightline beside transformers and sentence-transformers: same weights, items and run.

    python -m bench.embed                                 # float32
    python -m bench.embed --dtype bfloat16 --task text --save
    python -m bench.embed --size 2b --dtype bfloat16      # the true shape of the published 2B, random weights
    python -m bench.embed --dtype int8                    # int8 weights beside Sightline's own bf16, no peer has them

Texts are tokenized in the measured time by all; pictures and videos are decoded, resized and cut into patches before
it, and all engines get the same patches. Batches of transformers are sorted by true length.
"""

from __future__ import annotations

from bench.measure import SCRATCH, Bench, arguments
from bench.small import checkpoint, tasks
from bench.worker import Prompts


def main() -> None:
    """Every task that the options ask for."""
    given = arguments(__doc__)
    folder = checkpoint(SCRATCH, "bfloat16" if given.dtype == "int8" else given.dtype, given.size)
    asked = tasks("embed", given.size)
    prompts = Prompts("embed", str(folder), asked)
    bench = Bench("embed", given, folder)
    for task in given.task or asked:
        bench.run(task, prompts.of(task)[1])
    bench.close()


if __name__ == "__main__":
    main()
