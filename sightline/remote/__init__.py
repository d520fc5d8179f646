"""Models that run on another machine: a Sightline, vLLM or DashScope server in the place of local weights.

::

    import sightline as sl
    from sightline.remote import RemoteEmbedder, RemoteReranker

    embedder = RemoteEmbedder("http://gpu-box:8077", key="…")
    reranker = RemoteReranker("http://gpu-box:8077", key="…")
    library = sl.Library.open("photos.sightline", embedder=embedder, reranker=reranker)

Media are decoded here, made no larger than the model would make them, and sent as ``data:`` URLs; the server never
sees a path. An index that was built with local weights can be searched through a Sightline server that holds the same
weights, and the other way round: the server says its fingerprint. ::

    calls      HTTP: the key, limits, retries        dialects   what each kind of server is asked and answers
    parts      items -> texts and data: URLs         endpoint   one server: its dialect, its cards, its budgets
    batches    what travels together, who is blamed  films      frames -> one file
    embedder, reranker   the two models
"""

from __future__ import annotations

from sightline.remote.embedder import RemoteEmbedder
from sightline.remote.reranker import RemoteReranker

__all__ = ["RemoteEmbedder", "RemoteReranker"]
