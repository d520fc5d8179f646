"""Prepared prompts through the network: packed by a token budget, heads computed once, memory respected.

A result does not depend on who shared its batch. A batch that runs out of memory is halved and goes on, and later
batches are cut smaller; a prompt that does not fit alone is an error of that prompt. A state that is not finite, or is
zero, is computed once more, alone and in float32.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from sightline.engine.features import Features
from sightline.engine.feed import windows
from sightline.engine.pixels import patches_on
from sightline.engine.plan import halves, plan
from sightline.engine.prefix import Head, shared_head
from sightline.engine.towers import cache_of
from sightline.errors import CapacityError, SightlineError
from sightline.model.ops import KeyValue
from sightline.model.vl import QwenVL
from sightline.model.wide import widened
from sightline.prep.patches import num_tokens
from sightline.prep.prepare import Prepared
from sightline.prep.prompt import Visual

logger = logging.getLogger(__name__)

State: TypeAlias = NDArray[np.float32]
"""Final hidden state of one prompt, (C,)."""

CPU_TOKENS: Final = 2048
"""Tokens in one pass on a CPU: larger ones gain nothing, half of it costs 3 % (docs/performance.md)."""
CPU_TURN: Final = 1024
"""The same where others wait for the pass to end."""
GPU_TOKENS: Final = 16384
WINDOW_PASSES: Final = 8
"""Token budgets worth of work in one window: enough for good packing, little enough to keep memory flat."""
MIN_HEAD: Final = 8
"""A shared head shorter than this is not worth its own pass."""
KEPT_HEADS: Final = 8
"""Heads whose keys and values are remembered: one for each instruction in use."""
VISUAL_COST: Final = 4
"""Tokens of budget that one visual token costs, for the four patches behind it."""
MIN_TOKENS: Final = 64
"""A shortage of memory cuts passes to no less: what is over it runs alone."""
CALM_PASSES: Final = 64
"""Passes without a shortage after which they may be twice as large again: another program may have held the memory."""


class Engine:
    """One network on one device."""

    def __init__(
        self, model: QwenVL, *, max_tokens: int | None = None, cache_bytes: int = 256 * 2**20, reuse_heads: bool = True
    ) -> None:
        self.model = model
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.max_tokens = max_tokens or (CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS)
        """Budget of a pass; smaller for a while after memory ran out."""
        self._most_tokens = self.max_tokens
        self._calm = 0
        """Passes since memory ran out."""
        self.features = cache_of(model.visual, cache_bytes)
        self.reuse_heads = reuse_heads
        self._heads: OrderedDict[bytes, list[KeyValue]] = OrderedDict()
        self._pads = (model.config.image_token_id, model.config.video_token_id)

    @property
    def turn_tokens(self) -> int:
        """Budget of a pass while others wait their turn."""
        return min(self.max_tokens, CPU_TURN) if self.device.type == "cpu" else self.max_tokens

    def states(self, prompts: Sequence[Prepared], *, shared: bool = False) -> list[State | CapacityError]:
        """Final hidden state of the last token of each prompt, in order.

        Args:
            prompts: any mix of text, pictures and videos.
            shared: look for the longest beginning that all prompts share (one query, many documents) instead of the
                head that each brings (one instruction, many items).

        Returns:
            for each prompt its state (C,) float32, or why it has none.
        """
        out: list[State | CapacityError] = [CapacityError("not run")] * len(prompts)
        for head, members in self.groups(prompts, shared=shared):
            waiting = self._batches(prompts, members, head)
            while waiting:
                budget, batch = self.max_tokens, waiting.pop(0)
                for index, state in zip(batch, self.run([prompts[i] for i in batch], head), strict=True):
                    out[index] = state
                if self.max_tokens < budget:  # memory ran out: the rest is cut anew
                    waiting = self._batches(prompts, [index for batch in waiting for index in batch], head)
        return out

    def run(self, prompts: Sequence[Prepared], head: Head) -> list[State | CapacityError]:
        """One pass over prompts that go on from one head; in halves when memory runs out.

        Args:
            prompts: as many as a pass may hold, see ``cost`` and ``max_tokens``.
            head: of all of them, see ``groups``.
        """
        out: list[State | CapacityError] = [CapacityError("not run")] * len(prompts)
        pending = [list(range(len(prompts)))]
        twice: set[int] = set()
        while pending:
            batch = pending.pop(0)
            found = self._try([prompts[index] for index in batch], head)
            if found is None:
                self._forget()
                if len(batch) > 1:
                    logger.warning("out of memory with %d items in a batch; going on with half", len(batch))
                    self._shrink(sum(self.cost(prompts[index], head) for index in batch))
                    pending[:0] = halves(batch)
                    continue
                if batch[0] not in twice:  # what was remembered is given back now: that may have been enough
                    twice.add(batch[0])
                    pending.insert(0, batch)
                    continue
                length = len(prompts[batch[0]])
                found = [CapacityError(f"one item of {length} tokens does not fit into memory")]
            for index, state in zip(batch, found, strict=True):
                out[index] = state
        self._grow()
        bad = [index for index, state in enumerate(out) if isinstance(state, np.ndarray) and not is_vector(state)]
        if bad:
            self._forget()  # a remembered head or feature may be what is not finite
            logger.warning("%d vectors are not finite or are zero; computing each alone in float32", len(bad))
            exact = Engine(widened(self.model), cache_bytes=0, reuse_heads=False)
            for index in bad:
                found = exact._try([prompts[index]], Head(0, 0))
                if found is not None and is_vector(found[0]):  # else the bad one stays, for the caller to refuse
                    out[index] = found[0]
        return out

    def _batches(self, prompts: Sequence[Prepared], members: Sequence[int], head: Head) -> list[list[int]]:
        """Members as passes of today's budget."""
        cut = plan([self.cost(prompts[index], head) for index in members], self.max_tokens)
        return [[members[place] for place in batch] for batch in cut]

    def _try(self, prompts: Sequence[Prepared], head: Head) -> list[State | CapacityError] | None:
        """``_run``, or None when memory ran out; by then what the pass held is free."""
        try:
            return self._run(prompts, head)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            return None

    def _shrink(self, cost: int) -> None:
        """Memory ran out in a pass of this cost: let the next ones be half of it."""
        self.max_tokens = max(min(cost // 2, self.max_tokens), min(MIN_TOKENS, self._most_tokens))
        self._calm = 0

    def _grow(self) -> None:
        """After a time without a shortage, let passes be larger again."""
        if self.max_tokens == self._most_tokens:
            return
        self._calm += 1
        if self._calm >= CALM_PASSES:
            self.max_tokens, self._calm = min(2 * self.max_tokens, self._most_tokens), 0

    def stream(
        self, prompts: Iterable[Prepared | SightlineError], *, shared: bool = False
    ) -> Iterator[State | SightlineError]:
        """``states`` of any number of prompts, window by window; an error takes the place it came in."""
        for window in windows(prompts, WINDOW_PASSES * self.max_tokens):
            states = iter(self.states([entry for entry in window if isinstance(entry, Prepared)], shared=shared))
            for entry in window:
                yield next(states) if isinstance(entry, Prepared) else entry

    def preparing(self) -> AbstractContextManager[None]:
        """Held while a prompt is prepared. Here nobody has to wait; see ``SharedEngine``."""
        return nullcontext()

    def groups(self, prompts: Sequence[Prepared], *, shared: bool = False) -> list[tuple[Head, list[int]]]:
        """Indices of prompts that go on from one head, with that head; ``shared`` as in ``states``."""
        everyone = list(range(len(prompts)))
        if not prompts or not self.reuse_heads:
            return [(Head(0, 0), everyone)] if prompts else []
        if shared:
            head = shared_head(prompts, self._pads)
            useful = head.length >= MIN_HEAD and len(prompts) > 1
            return [(head if useful else Head(0, 0), everyone)]
        groups: dict[bytes, list[int]] = {}
        for index, prompt in enumerate(prompts):
            groups.setdefault(prompt.ids[: prompt.head].tobytes(), []).append(index)
        return [(Head(prompts[members[0]].head, 0), members) for members in groups.values()]

    def cost(self, prompt: Prepared, head: Head) -> int:
        """Tokens of budget that a prompt takes in a pass after its head."""
        visuals = prompt.visuals[head.num_visuals :]
        fresh = sum(num_tokens(visual.grid) for visual in visuals if visual.key not in self.features)
        return len(prompt) - head.length + (VISUAL_COST - 1) * fresh

    def head_key(self, prompt: Prepared, head: Head) -> bytes:
        """What a head is made of, ids and pictures: prompts of an equal key may share a pass, whoever they are from."""
        keys = b"".join(visual.key for visual in prompt.visuals[: head.num_visuals])
        return prompt.ids[: head.length].tobytes() + keys

    @torch.no_grad()
    def _run(self, prompts: Sequence[Prepared], head: Head) -> list[State | CapacityError]:
        """One packed pass."""
        prefix = self._head_states(prompts[0], head) if head.length else None
        visuals = [visual for prompt in prompts for visual in prompt.visuals[head.num_visuals :]]
        lengths = [len(prompt) - head.length for prompt in prompts]
        ids = np.concatenate([prompt.ids[head.length :] for prompt in prompts])
        positions = np.concatenate([prompt.positions[:, head.length :] for prompt in prompts], 1)
        states = self.model(
            torch.from_numpy(ids).to(self.device),
            torch.from_numpy(positions).to(self.device),
            lengths,
            features=self._features(visuals),
            prefix=prefix,
        )
        return list(states.float().cpu().numpy())

    def _head_states(self, prompt: Prepared, head: Head) -> list[KeyValue]:
        key = self.head_key(prompt, head)
        if key in self._heads:
            self._heads.move_to_end(key)
            return self._heads[key]
        pairs = self.model.prefix_states(
            torch.from_numpy(prompt.ids[: head.length].copy()).to(self.device),
            torch.from_numpy(prompt.positions[:, : head.length].copy()).to(self.device),
            features=self._features(prompt.visuals[: head.num_visuals]),
        )
        self._heads[key] = pairs
        while len(self._heads) > KEPT_HEADS:
            self._heads.popitem(last=False)
        return pairs

    def _features(self, visuals: Sequence[Visual]) -> Features:
        """Features of visuals in order, joined; each distinct one goes through the vision tower at most once."""
        if not visuals:
            return ()
        known: dict[bytes, Features] = {}
        new: dict[bytes, Visual] = {}
        for visual in visuals:
            if visual.key in known or visual.key in new:
                continue
            found = self.features.get(visual.key)
            if found is None:
                new[visual.key] = visual
            else:
                known[visual.key] = tuple(part.to(self.device) for part in found)
        if new:
            made = self.model.vision_features(
                [patches_on(self.device, visual) for visual in new.values()],
                [visual.grid for visual in new.values()],
            )
            sizes = [num_tokens(visual.grid) for visual in new.values()]
            for key, *parts in zip(new, *(torch.split(layer, sizes) for layer in made), strict=True):
                known[key] = tuple(parts)
                self.features.put(key, known[key])
        layers = zip(*(known[visual.key] for visual in visuals), strict=True)
        return tuple(torch.cat(layer) for layer in layers)

    def _forget(self) -> None:
        """Gives back what can be given back before a smaller try."""
        self._heads.clear()
        self.features.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def is_vector(state: object) -> bool:
    """Whether it is numbers that can be set to length 1: finite, and not all zero."""
    return isinstance(state, np.ndarray) and bool(np.isfinite(state).all()) and bool(state.any())


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # the CPU allocator raises a plain RuntimeError
    return any(words in str(error) for words in ("not enough memory", "out of memory", "allocate memory"))
