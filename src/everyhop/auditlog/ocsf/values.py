# SPDX-License-Identifier: Apache-2.0
"""The numbers of OCSF 1.8 that we use; tests/conformance/ocsf compares them with the published schema."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

VERSION: Final = "1.8.0"
VERSION_WITH_ATTESTATION: Final = "1.9.0-dev"
"""The profile ``record_integrity`` is in no release yet; an event says so when it carries it."""

HTTP_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
"""The schema knows no others; a caller may send any, which is kept in ``unmapped`` then."""


class Severity(IntEnum):
    """``severity_id``."""

    UNKNOWN = 0
    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


class Status(IntEnum):
    """``status_id`` of everything but a finding."""

    UNKNOWN = 0
    SUCCESS = 1
    FAILURE = 2


class FindingStatus(IntEnum):
    """``status_id`` of a finding."""

    NEW = 1


class Action(IntEnum):
    """``action_id`` of the security control profile."""

    ALLOWED = 1
    DENIED = 2
    OBSERVED = 3


class Disposition(IntEnum):
    """``disposition_id`` of the security control profile."""

    ALLOWED = 1
    BLOCKED = 2
    QUARANTINED = 3
    LOGGED = 17
    ALERT = 19
    UNAUTHORIZED = 26
    ERROR = 27


class ApiActivityId(IntEnum):
    """What API Activity (6003) tells of."""

    UNKNOWN = 0
    CREATE = 1
    READ = 2
    UPDATE = 3
    DELETE = 4
    OTHER = 99


class AuthenticationId(IntEnum):
    """What Authentication (3002) tells of."""

    UNKNOWN = 0
    LOGON = 1
    AUTHENTICATION_TICKET = 3
    SERVICE_TICKET_REQUEST = 4
    OTHER = 99


class AuthorizeSessionId(IntEnum):
    """What Authorize Session (3003) tells of."""

    ASSIGN_PRIVILEGES = 1


class EntityId(IntEnum):
    """What Entity Management (3004) tells of."""

    UNKNOWN = 0
    CREATE = 1
    READ = 2
    UPDATE = 3
    DELETE = 4
    ENROLL = 6
    UNENROLL = 7
    ENABLE = 8
    DISABLE = 9
    ACTIVATE = 10
    DEACTIVATE = 11
    SUSPEND = 12
    RESUME = 13
    OTHER = 99


class FindingId(IntEnum):
    """What Detection Finding (2004) tells of."""

    CREATE = 1


class UserType(IntEnum):
    """``type_id`` of a user."""

    UNKNOWN = 0
    USER = 1
    ADMIN = 2
    SYSTEM = 3
    SERVICE = 4


class EntityType(IntEnum):
    """``type_id`` of a managed entity."""

    USER = 2
    POLICY = 5


class AuthProtocol(IntEnum):
    """``auth_protocol_id``."""

    OAUTH_2_0 = 6
    OTHER = 99


class AnalyticType(IntEnum):
    """``type_id`` of an analytic."""

    RULE = 1
    BEHAVIORAL = 2
    STATISTICAL = 3


class Observed(IntEnum):
    """``type_id`` of an observable."""

    USER_NAME = 4


class FingerprintAlgorithm(IntEnum):
    """``algorithm_id`` of a fingerprint."""

    SHA_256 = 3


class FingerprintEncoding(IntEnum):
    """``encoding_id`` of a fingerprint; new in 1.9, as attestations are."""

    HEX = 1
