# SPDX-License-Identifier: Apache-2.0
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Decision(_message.Message):
    __slots__ = ("id", "time", "allowed", "caller", "operation", "method", "path", "rule", "reason", "code", "status", "user", "snapshot", "detail", "trace")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    id: str
    time: int
    allowed: bool
    caller: str
    operation: str
    method: str
    path: str
    rule: str
    reason: str
    code: str
    status: int
    user: str
    snapshot: str
    detail: str
    trace: str
    def __init__(self, id: _Optional[str] = ..., time: _Optional[int] = ..., allowed: _Optional[bool] = ..., caller: _Optional[str] = ..., operation: _Optional[str] = ..., method: _Optional[str] = ..., path: _Optional[str] = ..., rule: _Optional[str] = ..., reason: _Optional[str] = ..., code: _Optional[str] = ..., status: _Optional[int] = ..., user: _Optional[str] = ..., snapshot: _Optional[str] = ..., detail: _Optional[str] = ..., trace: _Optional[str] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("decisions", "dropped", "spiffe_id")
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    dropped: int
    spiffe_id: str
    def __init__(self, decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., dropped: _Optional[int] = ..., spiffe_id: _Optional[str] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("taken", "refused")
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    taken: int
    refused: int
    def __init__(self, taken: _Optional[int] = ..., refused: _Optional[int] = ...) -> None: ...
