"""How fast are documents scored? Sightline beside plain transformers: same weights, same pairs, one run.

    python -m bench.rerank --dtype bfloat16 --save

All get prompts made before the measured time. transformers computes only the two rows of the head that matter, which is
kinder to it than its own class is; the official code scores pairs one by one.
"""

from __future__ import annotations

from bench.measure import SCRATCH, Bench, arguments
from bench.small import checkpoint, tasks
from bench.worker import Prompts


def main() -> None:
    """Every task that the options ask for."""
    given = arguments(__doc__)
    given.engine = [name for name in given.engine if name != "sentence-transformers"]
    folder = checkpoint(SCRATCH, "bfloat16" if given.dtype == "int8" else given.dtype, given.size)
    asked = tasks("rerank", given.size)
    prompts = Prompts("rerank", str(folder), asked)
    bench = Bench("rerank", given, folder)
    for task in given.task or asked:
        bench.run(task, prompts.of(task)[1])
    bench.close()


if __name__ == "__main__":
    main()
