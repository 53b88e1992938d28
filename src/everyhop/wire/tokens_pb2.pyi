# SPDX-License-Identifier: Apache-2.0
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class MintRequest(_message.Message):
    __slots__ = ("target", "operation", "scope", "x5t", "spiffe_id")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    X5T_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    target: str
    operation: str
    scope: _containers.RepeatedScalarFieldContainer[str]
    x5t: str
    spiffe_id: str
    def __init__(self, target: _Optional[str] = ..., operation: _Optional[str] = ..., scope: _Optional[_Iterable[str]] = ..., x5t: _Optional[str] = ..., spiffe_id: _Optional[str] = ...) -> None: ...

class MintResponse(_message.Message):
    __slots__ = ("token", "expires_at")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    token: str
    expires_at: int
    def __init__(self, token: _Optional[str] = ..., expires_at: _Optional[int] = ...) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("subject_token", "subject_token_type", "requested_token_type", "target", "operation", "scope", "x5t", "spiffe_id")
    SUBJECT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_TOKEN_TYPE_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_TOKEN_TYPE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    X5T_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    subject_token: str
    subject_token_type: str
    requested_token_type: str
    target: str
    operation: str
    scope: _containers.RepeatedScalarFieldContainer[str]
    x5t: str
    spiffe_id: str
    def __init__(self, subject_token: _Optional[str] = ..., subject_token_type: _Optional[str] = ..., requested_token_type: _Optional[str] = ..., target: _Optional[str] = ..., operation: _Optional[str] = ..., scope: _Optional[_Iterable[str]] = ..., x5t: _Optional[str] = ..., spiffe_id: _Optional[str] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("token", "issued_token_type", "expires_at")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ISSUED_TOKEN_TYPE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    token: str
    issued_token_type: str
    expires_at: int
    def __init__(self, token: _Optional[str] = ..., issued_token_type: _Optional[str] = ..., expires_at: _Optional[int] = ...) -> None: ...

class WatchContextRequest(_message.Message):
    __slots__ = ("spiffe_id",)
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    def __init__(self, spiffe_id: _Optional[str] = ...) -> None: ...

class ContextUpdate(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    def __init__(self, document: _Optional[bytes] = ...) -> None: ...
