"""Batches made by other processes while the network learns."""

from __future__ import annotations

import multiprocessing
import os
import queue
import traceback
from typing import Any

from sightline.errors import ConfigError, InputError, SightlineError
from sightline.train.batch import Batch, BatchSource

DEPTH = 4
"""Batches that each process keeps ready."""
LOOK_S = 2.0
"""Seconds after which each side looks whether the other is still there."""


class Ahead:
    """The batches of steps ``first``, ``first + 1``, …, each of which is the same whoever makes it and how often.

    Args:
        source: picklable; called in each process.
        first: step to begin with.
        workers: processes; they take steps in turn.
    """

    def __init__(self, source: BatchSource, *, first: int = 0, workers: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._step = first
        self._queues: list[Any] = [context.Queue(DEPTH) for _ in range(workers)]
        self._workers = [
            context.Process(target=_make, args=(source, out, first + place, workers), daemon=True)
            for place, out in enumerate(self._queues)
        ]
        self._first = first
        for worker in self._workers:
            worker.start()

    def next(self) -> Batch:
        """The batch of the next step.

        Raises:
            SightlineError: what the source raised.
            RuntimeError: it raised something else, or its process died.
        """
        place = (self._step - self._first) % len(self._workers)
        while True:
            try:
                made = self._queues[place].get(timeout=LOOK_S)
                break
            except queue.Empty:
                if not self._workers[place].is_alive():
                    code = self._workers[place].exitcode
                    raise RuntimeError(f"the process that makes batches died with {code}") from None
        if isinstance(made, Exception):
            raise made
        self._step += 1
        return made  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make(source: BatchSource, out: Any, step: int, stride: int) -> None:
    """Runs in a process of its own, until that of the training ends it or is gone."""
    import torch

    torch.set_num_threads(1)
    made: Any = None
    make = None
    while True:
        try:
            make = source() if make is None else make
            made = make(step)
        except SightlineError as error:
            # some errors cannot be unpickled, because their constructors take other arguments
            kind = InputError if isinstance(error, InputError) else ConfigError
            made = kind(f"while making the batch of step {step}: {error}")
        except Exception:  # told to the training process, which raises it there
            made = RuntimeError(f"while making the batch of step {step}:\n{traceback.format_exc()}")
        _put(out, made)
        if isinstance(made, Exception):
            out.close()
            out.join_thread()
            return
        step += stride


def _put(out: Any, made: Any) -> None:
    while True:
        try:
            out.put(made, timeout=LOOK_S)
            return
        except queue.Full:
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                os._exit(1)  # killed: nobody will read what the queue still holds
