"""Sightline inside other people's programs. Each module needs the package it is named after, and no other.

==================== ================= ===================================================================
module               extra             what it gives
==================== ================= ===================================================================
``langchain``        ``langchain``     ``SightlineEmbeddings``, ``SightlineRetriever``, ``SightlineReranker``
``llamaindex``       ``llamaindex``    ``SightlineEmbedding``, ``SightlineRetriever``, ``SightlineReranker``
``haystack``         ``haystack``      embedders of texts and documents, a retriever, a ranker
``mteb``             ``eval``          ``Encoder`` and ``CrossEncoder`` for ``mteb.evaluate``
``mcp``              ``mcp``           a server with ``search``, ``show`` and ``index_status`` for assistants
==================== ================= ===================================================================

All take any embedding model, reranking model or ``Library``: local, remote (``sightline.remote``) or your own.
"""
