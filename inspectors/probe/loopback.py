"""Where a host may listen beside its Unix socket: HOST:PORT of the machine itself, nothing that others can reach."""

from __future__ import annotations

import ipaddress
import socket

PORTS_TRIED = 64
"""From the wanted port on, where other processes of the same command have taken it; after these any free one."""


class AddressError(ValueError):
    """An address that is none, or that is not of this machine alone."""


def parse(text: str) -> tuple[str, int]:
    """`127.0.0.1:5678`, `localhost:0` or `[::1]:5678` as (IP address, port). AddressError names what is wrong with it.

    Names are not looked up: `localhost` is 127.0.0.1 whatever the machine's tables say.
    """
    host, colon, digits = text.strip().rpartition(":")
    is_port = digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= 0xFFFF
    if not colon or not is_port:
        raise AddressError(f"{text!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise AddressError(f"{text!r} is not HOST:PORT: an IPv6 address is written as [::1]:{digits}")
    if host in {"", "localhost"}:
        return "127.0.0.1", int(digits)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise AddressError(f"{host!r} is not an address of this machine alone, such as 127.0.0.1") from None
    if not address.is_loopback or "%" in host:
        raise AddressError(f"{host} can be reached from other machines; only loopback addresses are allowed")
    return str(address), int(digits)


def shown(host: str, port: int) -> str:
    """An address as `parse` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listener(text: str) -> socket.socket:
    """A bound socket at the address, or the next free port after it. Raises AddressError and OSError."""
    host, wanted = parse(text)
    last: OSError | None = None
    for port in (*range(wanted, min(wanted + PORTS_TRIED, 0x10000)), 0) if wanted else (0,):
        found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((host, port))
            found.listen(16)
        except OSError as error:
            found.close()
            last = error
        else:
            return found
    raise last or OSError(f"no port is free at {host}")
