"""The HTTP server: OpenAI-, Cohere- and Jina-shaped routes, libraries, and a page. One process, one model each.

``create_app`` makes the application of ``Services``; ``sightline serve`` runs it. Who does what::

    app        puts the parts together            guard      who may call, how much, with which headers
    services   what the routes work with          faults     every error in one JSON shape
    desk       blocking work off the event loop   wire       JSON shapes that several routes share
    addresses, keys, login, bodies, ranges:       connection  one connection, with the clocks uvicorn lacks
               what the guard reads
    models     models by lane                     attachments  media of a request -> pixels, in a child process
    embeddings, ranking, searching, libraries, jobs, files, health, page: the routes
"""
