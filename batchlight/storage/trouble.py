"""The meaning of exceptions of an object store's client, in words that reveal no secret."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, UnauthenticatedError

from batchlight.storage.base import escape_controls
from batchlight.storage.connecting import CREDENTIALS, endpoint_of
from batchlight.storage.location import Location

_SIGNATURE = re.compile(
    "SignatureDoesNotMatch|InvalidAccessKeyId|ExpiredToken|InvalidToken|RequestTimeTooSkewed"
)
_BAD_KEY = re.compile("KeyTooLongError|InvalidObjectName|InvalidResourceName")
_CONFLICT = re.compile("ConditionalRequestConflict|OperationAborted")
_PASSING = re.compile("status code: 4(08|09|29)|RequestTimeout|IncompleteBody|BadDigest|SlowDown")
"""Refusals that a retry may avoid: too slow, in conflict, too many, or incomplete."""
_TOO_MANY = re.compile("SlowDown|TooManyRequests|ServerBusy|status code: (429|503)")
_NO_CREDENTIALS = re.compile(
    r"169\.254\.169\.254|/latest/api/token|/computeMetadata/|/metadata/identity/oauth2/token"
)
"""Metadata services of cloud machines, queried if the environment has no credentials."""
_CERTIFICATE = re.compile(r"certificate|UnknownIssuer|self-signed", re.IGNORECASE)
_REDIRECTED = re.compile("PermanentRedirect|BareRedirect|Received redirect")
"""S3's answer for a bucket in another region."""
_REGION_WITHIN_S = 4
_REASON_LENGTH = 200


def already_exists(error: BaseException) -> bool:
    """Whether the object exists; some conflicts only mean that another request is writing it."""
    return isinstance(error, AlreadyExistsError) and not _CONFLICT.search(str(error))


def is_bad_key(error: BaseException) -> bool:
    """Whether the store cannot have an object with this name."""
    return bool(_BAD_KEY.search(str(error)))


def is_transient(error: BaseException) -> bool:
    """Whether a retry may help: not for a missing bucket, denied access or a bad request."""
    text = str(error)
    refused = re.search(r"status code: (3\d\d|4\d\d|501)", text) and not _PASSING.search(text)
    wrong = _CERTIFICATE.search(text) or _REDIRECTED.search(text)
    return not (_is_denied(error) or refused or wrong)


def is_slow_down(error: BaseException) -> bool:
    """Whether the store has refused this request only because there are too many."""
    return bool(_TOO_MANY.search(str(error)))


def is_denied_one_object(error: BaseException) -> bool:
    """Whether permission is denied although the credentials are valid."""
    return isinstance(error, PermissionDeniedError) and not _SIGNATURE.search(str(error))


def _is_denied(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, PermissionDeniedError | UnauthenticatedError) or bool(
        _SIGNATURE.search(text) or re.search(r"status code: 40[13]", text)
    )


def odd_name(where: str, error: BaseException) -> str:
    """A sentence about an object whose name the client rejects."""
    name = re.search('Path "(.*?)"', str(error), re.DOTALL)
    return (
        f"cannot list {where}: the client refuses the name "
        f"'{escape_controls(name.group(1)) if name else '?'}' "
        "(control characters, or parts that are empty or dots); rename or delete that object"
    )


def reason_of(error: BaseException, location: Location) -> str:
    """One clause for the user; server texts are shortened to their code and message."""
    text = str(error)
    credentials = f"check {CREDENTIALS[location.scheme]}"
    if "NoSuchBucket" in text or "ContainerNotFound" in text:
        return f"there is no bucket {location.bucket}; create it or correct its name"
    if _NO_CREDENTIALS.search(text):
        return f"no credentials were found; {credentials}"
    if _CERTIFICATE.search(text):
        return (
            "the certificate of the endpoint is not trusted; add its authority to those of the "
            "system, or name a file of authorities in SSL_CERT_FILE (AWS_CA_BUNDLE is not read)"
        )
    if _REDIRECTED.search(text):
        region = _region_of(location)
        where = f"the region {region}" if region else "another region"
        return f"the bucket is in {where}; set AWS_REGION to {region or 'it'}"
    if "error sending request" in text or "dns error" in text:
        endpoint = _without_password(endpoint_of(location)) or f"the {location.scheme}:// service"
        return f"cannot reach {endpoint}; check the endpoint and the network"
    code = re.search(r"<Code>([^<]*)</Code>", text)
    message = re.search(r"<Message>([^<]*)</Message>", text)
    if _is_denied(error):
        return f"access denied ({code.group(1) if code else 'no reason given'}); {credentials}"
    if code:
        return f"the store answered {code.group(1)}: {message.group(1) if message else ''}".rstrip(
            ": ."
        )
    status = re.search(r"status code: (\d+ [A-Za-z ]+)", text)
    if status:
        return f"the store answered {status.group(1)}"
    return _without_password(text.partition("\n")[0])[:_REASON_LENGTH]


def _region_of(location: Location) -> str | None:
    """The region of an S3 bucket, which S3 tells anyone; the client does not pass it on."""
    url = f"{endpoint_of(location) or 'https://s3.amazonaws.com'}/{location.bucket}"
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_REGION_WITHIN_S) as answer:
            found = answer.headers
    except urllib.error.HTTPError as error:
        found = error.headers
    except (OSError, ValueError):
        return None
    region = found.get("x-amz-bucket-region", "")
    return region if re.fullmatch("[a-z0-9-]{4,40}", region) else None


def _without_password(endpoint: str) -> str:
    return re.sub(r"//[^/@]*@", "//", endpoint)
