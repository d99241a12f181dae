"""Creates the secrets of the embedded services once, readable only by this user."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.errors import ConfigError
from infra.store import files

USER = "effnet"  # of the embedded Prefect and MLflow
_NAMES = (
    "access_key",
    "secret_key",
    "jwt_write",
    "jwt_read",
    "jwt_filer_write",
    "jwt_filer_read",
    "prefect_password",
    "mlflow_password",
    "mlflow_session_key",
)


def credentials(folder: Path) -> dict[str, str]:
    """Returns the keys of the object store and the passwords of Prefect and MLflow, creating missing ones.

    Raises:
        ConfigError: The credentials file is damaged.
    """
    path = folder / "credentials.json"
    secrets_by_name = _read(path)
    if not secrets_by_name.keys() >= set(_NAMES):
        with (folder / "credentials.lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # concurrent commands must end with the same secrets
            secrets_by_name = {name: _generate(name) for name in _NAMES} | _read(path)
            write_private(path, json.dumps(secrets_by_name, indent=2).encode())
    return secrets_by_name


def _read(path: Path) -> dict[str, str]:
    try:
        secrets_by_name: dict[str, str] = json.loads(path.read_bytes())
        if wrong := [name for name, value in secrets_by_name.items() if not isinstance(value, str) or not value]:
            raise ValueError(f"{wrong[0]} is not a key")
        return secrets_by_name
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged; delete it, new keys will be made: {error}") from error


def _generate(name: str) -> str:
    if name == "access_key":
        return f"effnet-{secrets.token_hex(6)}"
    return secrets.token_urlsafe(30) if name == "secret_key" else secrets.token_hex(24)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Returns a self-signed certificate and its key; weed's gRPC ports refuse clients without both."""
    cert_path, key_path = folder / "grpc.crt", folder / "grpc.key"
    if not (cert_path.exists() and key_path.exists()):
        key_pem, cert_pem = _create_self_signed()
        write_private(key_path, key_pem)
        files.write(cert_path, cert_pem)  # last, which marks the pair as complete
    return cert_path, key_path


def _create_self_signed() -> tuple[bytes, bytes]:
    # A dependency of both Prefect and MLflow. Imported here because prepare() must be fast and does not need it.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "effnet embedded services")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks that were set back
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, builder.sign(key, hashes.SHA256()).public_bytes(pem)


def write_private(path: Path, data: bytes) -> None:
    """Writes ``path`` atomically, with mode 0600 from its first byte."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
