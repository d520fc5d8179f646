"""``sightline serve`` and ``sightline mcp``: what goes on until it is stopped."""

from __future__ import annotations

import signal
import socket
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from sightline.cli import models
from sightline.cli.show import note
from sightline.errors import ConfigError, MissingExtraError
from sightline.settings import Settings, library_folder


def with_keys(settings: Settings, file: Path | None) -> Settings:
    """The settings, with the keys of a file: one a line; blank lines and lines that begin with # are left out.

    A key is never an option: the list of processes would show it to everyone on the machine.

    Raises:
        ConfigError: the file cannot be read or holds no key.
    """
    if file is None:
        return settings
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"the file of keys cannot be read: {file}") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"there is no key in {file}")
    return settings.replace(serve_keys=",".join(keys))


def with_models(settings: Settings, *, model: str | None, reranker: str | None) -> tuple[Settings, str | None]:
    """The settings with the models that the index remembers, and the revision of its embedder.

    Args:
        settings: of the command.
        model, reranker: asked for by name; the embedder of an index that exists may only be repeated.

    Raises:
        IndexMismatchError: the index was built with another embedder.
    """
    folder = library_folder(settings)
    kept = models.kept_by(folder)
    if kept is None:
        name, second, revision = model or settings.model, reranker or settings.reranker, None
    else:
        models.refuse_another(kept.card, model, folder)
        settings = models.joined(settings, kept)
        name, second = model or kept.card.model, reranker or kept.reranker
        revision = kept.card.revision or None
    if name == models.BUILTIN:
        note(models.builtin_note())
    return settings.replace(model=name, reranker=second), revision


def serve(
    paths: Sequence[Path],
    settings: Settings,
    *,
    model: str | None,
    reranker: str | None,
    revision: str | None,
    browser: bool,
) -> None:
    """Run the server until Ctrl-C or SIGTERM; ``paths`` are indexed while it answers."""
    try:
        import uvicorn

        from sightline.server.app import create_app
        from sightline.server.guard import check_config, uvicorn_options
        from sightline.server.services import Services
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from None
    check_config(settings)  # before gigabytes are loaded
    # process 1 of a container gets no signal that it does not handle: "stop" would wait while the models are loaded
    signal.signal(signal.SIGTERM, _end)
    settings, remembered = with_models(settings, model=model, reranker=reranker)
    services = Services.open(settings, revision=revision or remembered)
    app = create_app(services)
    if paths:
        services.jobs.submit("default", [str(path.expanduser().absolute()) for path in paths])

    class Server(uvicorn.Server):
        """Says where it is once it listens, refuses new work once it is told to stop, and then ends as it should.

        (uvicorn sends itself the signal again when all is done, and so ends with 143.)
        """

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit and sig == signal.SIGINT:
                self.force_exit = True
            self.should_exit = True
            services.desk.refuse()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if not self.started:
                return
            port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{settings.serve_host}]" if ":" in settings.serve_host else settings.serve_host
            note(f"Sightline is at http://{host}:{port}  (Ctrl-C ends it)")
            if browser:
                webbrowser.open(f"http://{host}:{port}/")

    config = uvicorn.Config(
        app, host=settings.serve_host, port=settings.serve_port, log_level="warning", **uvicorn_options(settings)
    )
    try:
        Server(config).run()
    finally:
        services.close()


def _end(number: int, frame: FrameType | None) -> None:
    """Leaves as a program that the signal has ended does."""
    raise SystemExit(128 + number)


def mcp(settings: Settings, *, http: bool, model: str | None, reranker: str | None) -> None:
    """Run the MCP server over standard input and output, or over HTTP."""
    from sightline.integrations.mcp import run

    with models.open_to_search(settings, model=model, reranker=reranker, rerank=settings.rerank) as library:
        run(library, transport="http" if http else "stdio", host=settings.serve_host, port=settings.serve_port)
