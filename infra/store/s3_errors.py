"""Translates botocore's errors into ``EffnetError``; matches classes by name and imports none of them."""

from __future__ import annotations

import os
import time
from email.utils import parsedate_to_datetime
from typing import Any

from infra.errors import ConfigError, DataError, EffnetError, ExpiredError, NotFoundError, TransientError
from infra.store.uris import bucket_and_key

MISSING = {"NoSuchKey", "NoSuchBucket", "404", "NotFound"}  # the answer to HEAD has no body, so only a number
PRECONDITION_FAILED = {"PreconditionFailed", "412"}
_REFUSED = {
    *("AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("InvalidToken", "RequestTimeTooSkewed"),
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_BUSY = {"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "429", "InternalError"}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError"}
_NO_ANSWER = {"ConnectionError", "HTTPClientError", "IncompleteReadError"}
SKEW_S = 300.0  # the store allows 15 minutes; a smaller difference does not explain a rejection
_HINT = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


def _clock_difference(error: Any) -> float:
    """Returns by how many seconds this clock is ahead of the answer's ``Date``; 0 if it has none."""
    date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return 0.0 if date is None else time.time() - parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def endpoint() -> str | None:
    """Returns the address of the object store that boto3 will use; None means Amazon S3."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def error_code(error: Any) -> str:
    """Returns the S3 error code of a ``ClientError``, such as ``NoSuchKey``; empty for other errors."""
    answer = getattr(error, "response", None) or {}  # botocore's connection errors carry a None
    return str(answer.get("Error", {}).get("Code", ""))


def translate_error(error: Any, uri: str, provider: str = "boto3's chain") -> EffnetError:
    """Returns the ``EffnetError`` for a ``ClientError`` or ``BotoCoreError`` raised while accessing ``uri``.

    Args:
        error: The error from botocore.
        uri: The requested URI.
        provider: Source of the credentials, shown if they have expired; their values are never shown.
    """
    where = endpoint() or "Amazon S3"
    if error_code(error) in _EXPIRED:
        return ExpiredError(f"{uri}: {where} says that the credentials of {provider} have expired; renew them")
    if getattr(error, "response", None) is not None:
        return _translate_answer(error, uri, where)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & _NO_CREDENTIALS:
        return ConfigError(f"{uri}: no usable credentials for {where}: {error}; set {_HINT}")
    if "ParamValidationError" in kinds and "bucket name" in str(error):
        return ConfigError(f"{uri}: {bucket_and_key(uri)[0]!r} is no valid name of a bucket")
    if "SSLError" in kinds:
        return ConfigError(f"{uri}: no trusted TLS connection to {where}: {error}")
    if kinds & _NO_ANSWER:
        return TransientError(
            f"object store {where} does not answer: {error}; start it with `effnet up` or set services.s3"
        )
    return ConfigError(f"{uri}: {error}")


def _translate_answer(error: Any, uri: str, where: str) -> EffnetError:
    """Translates an error answer of the store."""
    code = error_code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return ConfigError(f"{uri}: there is no bucket {bucket_and_key(uri)[0]!r} at {where}")
    if code in MISSING:
        return NotFoundError(f"no object at {uri} ({where})")
    if code == "InvalidRange":
        return DataError(f"{uri}: the object ends before the requested bytes")
    if code in _REFUSED and abs(apart_s := _clock_difference(error)) > SKEW_S:
        off = f"{round(abs(apart_s) / 60)} minutes {'ahead of' if apart_s > 0 else 'behind'} the clock of {where}"
        return ConfigError(
            f"{uri}: this machine's clock is {off}, which refuses the request ({code}): S3 takes signatures that are "
            "at most 15 minutes off; set the clock (NTP)"
        )
    if code in _REFUSED:
        return ConfigError(f"{uri}: {where} refuses the credentials that boto3 found ({code}); check {_HINT}")
    if status >= 500 or code in _BUSY:
        return TransientError(f"{uri}: object store {where} answers {status} {code}; try again later")
    return ConfigError(f"{uri}: object store {where} refuses: {error}")
