"""The certificate under which a gateway answers, read again when its files change.

Knows files and the ssl module, and nothing of requests.
"""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from autoglm_serve.core.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files."""

    certificate: Path
    """The chain, leaf first."""
    key: Path
    """Without a password; may be the same file."""
    client_authority: Path | None = None
    """Clients must show a certificate that one of these has signed; None: nobody is asked for one."""


def context(files: TlsFiles) -> ssl.SSLContext:
    """Ready to serve. Raises ConfigError, which says which file is no use and why."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    try:
        _load(made, files)
    except OSError as error:  # SSLError is one
        raise ConfigError(
            f"The certificate {files.certificate} with the key {files.key} cannot be used.",
            why=_why(error),
            next_step="Name PEM files that belong together and that this account may read, the key without a "
            "password, with --tls-cert and --tls-key.",
        ) from error
    if files.client_authority is not None:
        try:
            made.load_verify_locations(files.client_authority)
        except OSError as error:
            raise ConfigError(
                f"No client can be known by {files.client_authority}.",
                why=_why(error),
                next_step="Name a PEM file of what signs your clients' certificates with --tls-client-ca.",
            ) from error
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def _load(into: ssl.SSLContext, files: TlsFiles) -> None:
    for path in (files.certificate, files.key):
        path.open("rb").close()  # it says which of them cannot be read; OpenSSL does not
    into.load_cert_chain(files.certificate, files.key, password=lambda: "")  # it would ask the terminal


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return {"PEM": "It is no PEM file, or has a password."}.get(error.library or "", str(error))
    return f"{error.filename}: {error.strerror}" if error.filename else (error.strerror or str(error))


class Certificate:
    """The context of a server, whose certificate may be renewed while it serves."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises ConfigError."""
        self.context = context(files)
        self._files = files
        self._stamps = self._stamped()

    def look(self) -> bool:
        """Read the files again if they have changed: whether new connections have another certificate now.

        Files that do not fit together, as one has been written before the other, change nothing. The
        authority of clients is not read again.
        """
        stamps = self._stamped()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            context(self._files)  # as a whole, before anything of it is used
            _load(self.context, self._files)
        except (ConfigError, OSError) as error:
            log.error("the certificate has changed and cannot be used, the one before it stays: %s", error)
            return False
        log.info("the certificate %s has changed and is used from now on", self._files.certificate)
        return True

    def _stamped(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stamp(path) for path in (self._files.certificate, self._files.key))


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
