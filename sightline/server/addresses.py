"""Names of hosts and sites as callers write them, read strictly: what two parsers could read in two ways is refused."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from sightline.errors import ConfigError

_HOST: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})))(?::(?P<port>[0-9]{1,5}))?"
)
_SITE: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{1,30})://(?P<host>[^/?#@\\\s]{1,260})")
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Host:
    """What a ``Host`` header names.

    Attributes:
        name: in lower case; an IPv6 address in its shortest form, without brackets.
        port: None where none is written.
    """

    name: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """What an ``Origin`` header names.

    Attributes:
        scheme: http, https or that of an extension.
        host: with the scheme's own port where none is written.
    """

    scheme: str
    host: Host


def parse_host(text: str) -> Host | None:
    """A host and port, or None for anything else.

    >>> parse_host("LOCALHOST:8077"), parse_host("[::0001]"), parse_host("a/?x="), parse_host("a:0")
    (Host(name='localhost', port=8077), Host(name='::1', port=None), None, None)
    """
    found = _HOST.fullmatch(text)
    if found is None:
        return None
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port < 65536:
        return None
    if found["six"] is None:
        return Host(found["name"].lower(), port)
    try:
        return Host(str(ipaddress.IPv6Address(found["six"])), port)
    except ValueError:
        return None


def parse_site(text: str) -> Site | None:
    """The site of an ``Origin`` header, or None for anything else, ``null`` too.

    >>> parse_site("https://example.org"), parse_site("null"), parse_site("https://example.org/a")
    (Site(scheme='https', host=Host(name='example.org', port=443)), None, None)
    """
    found = _SITE.fullmatch(text)
    host = parse_host(found["host"]) if found else None
    if found is None or host is None:
        return None
    return Site(found["scheme"], Host(host.name, host.port or _PORTS.get(found["scheme"])))


def is_own(site: Site, host: Host) -> bool:
    """Whether a page of a site was served under the name of this request.

    A proxy in front may speak https to the browser and http to us, so both schemes will do.
    """
    port = host.port or _PORTS.get(site.scheme)
    return site.scheme in _PORTS and site.host == Host(host.name, port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("")
    (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_address(name: str) -> bool:
    """Whether a name is an IP address: no DNS answer can turn it into another machine."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def listed(setting: str) -> tuple[str, ...]:
    """The entries of a setting that joins them by commas.

    >>> listed(" a, b,,")
    ('a', 'b')
    """
    return tuple(entry for entry in (part.strip() for part in setting.split(",")) if entry)


def hosts_of(setting: str) -> frozenset[Host]:
    """The hosts of ``serve_hosts``.

    Raises:
        ConfigError: an entry that is no host; ``*`` is none.
    """
    found = set()
    for entry in listed(setting):
        host = parse_host(entry)
        if host is None:
            raise ConfigError(f"serve_hosts: {entry!r} is no name of a host, such as search.example.org or 10.0.0.5")
        found.add(host)
    return frozenset(found)


def sites_of(setting: str) -> frozenset[str]:
    """The sites of ``serve_origins``, as browsers write them.

    Raises:
        ConfigError: an entry that is no site; ``*`` and ``null`` are none.
    """
    found = set()
    for entry in listed(setting):
        if parse_site(entry) is None:
            raise ConfigError(f"serve_origins: {entry!r} is no site, such as https://app.example.org")
        found.add(entry)
    return frozenset(found)
