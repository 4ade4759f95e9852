"""Certificates for tests, made by openssl: an authority, and what it signs."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_NEW = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates in its folder."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def sign(self, name: str) -> tuple[Path, Path]:
        """A certificate for `name` and its key."""
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        extra = ("-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=critical,CA:FALSE")
        signer = ("-CA", self.certificate, "-CAkey", self.folder / "ca.key")
        _openssl(*_NEW, "-subj", f"/CN={name}", *extra, *signer, "-keyout", files[1], "-out", files[0])
        return files

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """As a client of servers that this authority has signed."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context


def authority(folder: Path, name: str = "authority") -> Authority:
    folder.mkdir(exist_ok=True)
    made = Authority(folder)
    _openssl(*_NEW, "-subj", f"/CN={name}", "-keyout", folder / "ca.key", "-out", made.certificate)
    return made


def _openssl(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=30)
