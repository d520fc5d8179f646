"""After the rows of an index were stepped back to an older version, what the ledger calls done may be done no more."""

from __future__ import annotations

import logging

from sightline.store.lance import LanceStore
from sightline.store.ledger import Ledger
from sightline.store.schema import Filter

SLACK_S = 3600.0
"""How far a clock may have been set back meanwhile."""

log = logging.getLogger(__name__)


def doubt_what_was_lost(store: LanceStore, ledger: Ledger) -> int:
    """Have files looked at again whose rows a step back may have taken, by the next reading; how many.

    Those are the files that became done after the version was written that is now the newest, for a changed file may
    have its old rows again, and as many; and all whose rows are not as many as they were. Looking again embeds nothing
    that is still there. To be called by the writer; a kill meanwhile is made good by the next.
    """
    since_s = store.stepped_back_s
    if since_s is None:
        return 0
    # older ones keep their version: only their number of rows is compared
    doubtful = [
        state
        for state in ledger.files("done")
        if state.updated_s >= since_s - SLACK_S or store.count(Filter(path_prefix=state.path)) != state.units
    ]
    with ledger.batch():
        for state in doubtful:
            ledger.begin(state.path, state.size, state.mtime_ns, state.content_hash, state.columns)
    store.settle_step()
    if doubtful:
        log.warning("%d file(s) written just before the damage are compared with their rows again", len(doubtful))
    return len(doubtful)
