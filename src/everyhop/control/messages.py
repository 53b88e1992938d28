# SPDX-License-Identifier: Apache-2.0
"""The messages between agent, server and commands: one definition for both ends (msgspec, strict)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final  # msgspec resolves annotations at run time

import msgspec

from everyhop.anomaly.model import BlockMode  # msgspec resolves annotations at run time
from everyhop.auditlog import Record  # msgspec resolves annotations at run time
from everyhop.auditlog.personal import MAX_VALUE, PersonKind  # likewise
from everyhop.auditlog.sealing import Seal

UNCHANGED: Final = msgspec.Raw()


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every message: immutable, and unknown members are refused."""


class Update(Message, frozen=True, omit_defaults=True):
    """One line of the stream from server to agent; what has not changed is absent, and a heartbeat is empty.

    ``snapshot`` is an encoded snapshot document, ``bundle`` an encoded bundle document (both raw JSON),
    ``authority`` the id of the active X.509 authority: when it changes, SVIDs are renewed at once.  ``tokens``
    is a :class:`TokenTruthDocument`, ``blocks`` what :func:`everyhop.anomaly.blocks_codec.encode_blocks` gave.
    """

    snapshot: msgspec.Raw = UNCHANGED
    bundle: msgspec.Raw = UNCHANGED
    authority: str | None = None
    tokens: msgspec.Raw = UNCHANGED
    blocks: msgspec.Raw = UNCHANGED


class RevokedDocument(Message, frozen=True):
    """What is believed no more: signing keys, and tokens and transactions until the given end (epoch seconds).

    Of a subject in ``subs``, what was issued up to the given moment.
    """

    kids: list[str] = []
    jtis: dict[str, int] = {}
    txns: dict[str, int] = {}
    subs: dict[str, int] = {}


class TokenTruthDocument(Message, frozen=True):
    """By what tokens are judged: who issues them, with which keys, and which are revoked.

    ``sequence`` grows with every published key set; a new key signs once every agent has acknowledged it.
    """

    issuer: str
    trust_domain: str
    sequence: int
    jwks: msgspec.Raw
    revoked: RevokedDocument


class MintItem(Message, frozen=True):
    """One or more access tokens for calls of ``spiffe_id`` to a service.

    ``operation`` set makes the audience ``target#operation``.  ``scope`` of None is everything that the policy
    grants there.  ``x5t`` is the thumbprint of the certificate that the tokens are bound to.
    """

    spiffe_id: str
    target: str
    x5t: str
    operation: str | None = None
    scope: list[str] | None = None
    count: int = 1


class MintTokensRequest(Message, frozen=True):
    """A batch of requests by one agent."""

    agent: str
    items: list[MintItem]


class BlockWish(Message, frozen=True):
    """Somebody to be blocked: ``subject`` is a service's name, a SPIFFE ID, or ``KIND:VALUE``.

    ``seconds`` of None lasts until it is lifted.  ``wait_seconds`` is how long to wait for every agent.
    """

    subject: str
    reason: str
    mode: BlockMode = BlockMode.BLOCK
    seconds: Annotated[float, msgspec.Meta(gt=0, le=366 * 86_400)] | None = None
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=60)] = 5.0
    force: bool = False


class UnblockWish(Message, frozen=True):
    """Somebody whose block is to be lifted, named as above."""

    subject: str
    reason: str
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=60)] = 5.0


class BlockView(Message, frozen=True):
    """One block as the owner may see it."""

    subject: str
    mode: BlockMode
    since: datetime
    until: datetime | None
    reason: str
    by: str
    finding: str | None = None
    service: str | None = None


class BlockAnswer(Message, frozen=True):
    """What a change of blocks came to.

    ``block`` is what is in force now, or what was lifted; ``lagging`` names the agents that have not confirmed yet, and
    ``milliseconds`` is how long all the others took.
    """

    block: BlockView
    sequence: int
    agents: int
    lagging: list[str]
    milliseconds: float
    calls: list[str] = []
    called_by: list[str] = []


class MintedToken(Message, frozen=True):
    """One token; ``expires_at`` in epoch seconds."""

    token: str
    expires_at: int
    jti: str


class MintResult(Message, frozen=True):
    """The tokens of one item, or why it was refused."""

    tokens: list[MintedToken] = []
    error: str | None = None
    code: str | None = None


class MintTokensResponse(Message, frozen=True):
    """Results in the order of the items."""

    results: list[MintResult]


class ExchangeTokenRequest(Message, frozen=True):
    """A token that was received, for a narrower one (RFC 8693): types are the URIs of its section 3.

    ``spiffe_id`` is the workload that asks, as attested.  ``source`` is the address of the outside client,
    where the subject token is an API key or a user's token that came in at the edge.
    """

    agent: str
    spiffe_id: str
    subject_token: str
    subject_token_type: str
    requested_token_type: str
    target: str | None = None
    operation: str | None = None
    scope: list[str] | None = None
    x5t: str | None = None
    source: str | None = None


class ExchangeTokenResponse(Message, frozen=True):
    """The token of an exchange; ``expires_at`` in epoch seconds."""

    token: str
    issued_token_type: str
    expires_at: int


class SignX509Item(Message, frozen=True):
    """One request for an X509-SVID; ``csr`` is DER."""

    spiffe_id: str
    csr: bytes


class SignX509Request(Message, frozen=True):
    """A batch of requests by one agent."""

    agent: str
    items: list[SignX509Item]


class SignX509Result(Message, frozen=True):
    """A chain (DER, leaf first) with its end, or the reason for refusing."""

    chain: list[bytes] = []
    expires_at: datetime | None = None
    authority: str | None = None
    error: str | None = None


class SignX509Response(Message, frozen=True):
    """Results in the order of the requests."""

    results: list[SignX509Result]


class SignJwtRequest(Message, frozen=True):
    """A request for a JWT-SVID."""

    agent: str
    spiffe_id: str
    audience: list[str]


class SignJwtResponse(Message, frozen=True):
    """A token with its validity."""

    token: str
    issued_at: datetime
    expires_at: datetime


class AuthorityView(Message, frozen=True):
    """One authority as the owner may see it."""

    id: str
    kind: str
    state: str
    not_before: datetime
    not_after: datetime
    published_sequence: int


class RecordBatch(Message, frozen=True, omit_defaults=True):
    """Records of one agent, oldest first.

    With a ``seal`` they are all of one producer, and ``chain`` (DER, leaf first) is that of the seal's certificate.
    """

    agent: str
    records: list[Record]
    seal: Seal | None = None
    chain: list[bytes] = []


class RecordsAccepted(Message, frozen=True):
    """What became of a batch.

    ``conflicts`` names records whose id (unsealed: or place) is taken.  Of a sealed batch all is stored or nothing:
    ``held`` is the producer's highest number that is durable, ``head`` the digest of its last seal.
    """

    stored: int
    duplicates: int
    conflicts: list[str] = []
    held: int = 0
    head: bytes = b""


class Person(Message, frozen=True):
    """A person as a record would name them: ``kind`` is ``user`` or ``address``."""

    kind: PersonKind
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_VALUE)]


class PseudonymsRequest(Message, frozen=True):
    """Persons for whom an agent needs pseudonyms, at most 500."""

    agent: str
    persons: Annotated[list[Person], msgspec.Meta(max_length=500)]


class PseudonymsResponse(Message, frozen=True):
    """Pseudonyms in the order of the persons; the values themselves where pseudonyms are off."""

    pseudonyms: list[str]


class ForgetRequest(Message, frozen=True):
    """The owner wants a person forgotten: ``user:NAME`` or ``address:ADDRESS``."""

    person: str
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class InstanceReport(Message, frozen=True):
    """One running sidecar, as ``status`` shows it."""

    id: str
    service: str
    pid: int
    ingress: str | None
    state: str
    app: str | None = None
    edge: str | None = None
    envoy_pid: int | None = None
    svid_expires_at: datetime | None = None
    envoy_restarts: int = 0
    snapshot: str | None = None


class AgentReport(Message, frozen=True):
    """What an agent has applied: snapshot, bundle sequence of every sidecar, token keys, its instances.

    ``block_sequence`` is the number of the blocks that the agent and every running sidecar enforce.
    """

    agent: str
    snapshot: str | None
    bundle_sequence: int
    instances: list[InstanceReport] = []
    spooled: int = 0
    token_sequence: int = 0
    block_sequence: int = 0


class LaunchRequest(Message, frozen=True):
    """``everyhop run`` asks for a sidecar: its own pid, and a fixed application port if the user wants one.

    ``edge`` is ``[HOST:]PORT``, where clients from outside the trust domain may call; ``edge_certificate`` and
    ``edge_key`` are absolute paths of PEM files that it shows in place of the SVID.
    """

    service: str
    pid: int
    port: int | None = None
    edge: str | None = None
    edge_certificate: str | None = None
    edge_key: str | None = None


class LaunchReply(Message, frozen=True):
    """What ``run`` needs to start Envoy and the workload.

    ``environment`` is for the workload alone: it holds the egress secret.  ``admin_socket`` answers ``/ready``.
    """

    id: str
    service: str
    spiffe_id: str
    envoy_argv: list[str]
    environment: dict[str, str]
    admin_socket: str
    app_socket: str
    app_port: int
    ingress: str
    log_file: str


class LaunchState(Message, frozen=True):
    """What ``run`` tells while it runs: its Envoy's pid, and where the application listens.

    ``app`` is ``unix``, ``port`` or None (not listening).  ``draining`` takes the instance out of every
    caller's endpoints.
    """

    envoy_pid: int | None = None
    child_pid: int | None = None
    app: str | None = None
    draining: bool = False
    envoy_restarts: int = 0


class SvidRequest(Message, frozen=True):
    """The owner of the state directory asks for an SVID of a service (``svid fetch``, ``call``)."""

    service: str
    audience: list[str] | None = None


class SvidReply(Message, frozen=True):
    """An X509-SVID: chain and bundle in DER, leaf first, key in PKCS#8 DER; or a JWT-SVID in ``token``."""

    spiffe_id: str
    chain: list[bytes] = []
    key: bytes = b""
    bundle: list[bytes] = []
    expires_at: datetime | None = None
    token: str | None = None


class TokenRequest(Message, frozen=True):
    """The owner of the state directory asks for an access token of a service (``token mint``, ``call --token``).

    ``x5t`` of None binds it to the SVID that the agent holds for the caller, which is what ``svid fetch`` gives.
    """

    caller: str
    target: str
    operation: str | None = None
    scope: list[str] | None = None
    x5t: str | None = None


class TokenReply(Message, frozen=True):
    """An access token with the thumbprint of the certificate that must carry it; ``expires_at`` in epoch seconds."""

    token: str
    jti: str
    expires_at: int
    x5t: str


class RefusedCredential(Message, frozen=True):
    """A credential that a sidecar refused, by its SHA-256 in 64 hex digits, and who showed it (``control.canaries.Shown``)."""

    digest: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    where: str
    caller: str | None = None
    source: str | None = None
    target: str | None = None
    decision: str | None = None


class RefusedBatch(Message, frozen=True):
    """Refused credentials of one agent."""

    agent: str
    items: Annotated[list[RefusedCredential], msgspec.Meta(max_length=256)]


class CanaryWish(Message, frozen=True):
    """A canary to make; ``kind`` is ``api-key``, ``secret`` or ``service``, ``response`` alert, block or quarantine."""

    kind: str
    name: str
    response: str = "alert"
    owner: str | None = None
    scopes: list[str] = []  # msgspec copies an empty default
    environment: str = "live"
    life_seconds: float | None = None
    prefix: str = ""


class CanaryView(Message, frozen=True):
    """A canary without what it is recognised by; ``lookup`` is the public part of an API key."""

    id: str
    kind: str
    name: str
    response: str
    state: str
    created_at: datetime
    created_by: str
    ended_at: datetime | None = None
    lookup: str | None = None


class CanaryCreated(Message, frozen=True):
    """A new canary; ``text`` is the credential, shown once, and ``is_declared`` says whether the policy has the service."""

    canary: CanaryView
    text: str | None = None
    is_declared: bool | None = None


class RevokeRequest(Message, frozen=True):
    """What to take back: one token, a transaction, or everything that a subject had up to now; exactly one."""

    token: str | None = None
    txn: str | None = None
    subject: str | None = None


class TokenText(Message, frozen=True):
    """One token."""

    token: str


class SigningKeyView(Message, frozen=True):
    """One key that signs tokens, as the owner may see it."""

    kid: str
    algorithm: str
    state: str
    created_at: datetime
    activated_at: datetime | None
    retired_at: datetime | None
    published_sequence: int


class SigningRotation(Message, frozen=True):
    """Publish the next signing key; ``now`` lets it sign once every agent holds it (``timeout`` in seconds)."""

    now: bool = False
    timeout: float = 20.0


class ApiKeyWish(Message, frozen=True):
    """An API key to be made: its owner, what it opens (``service.operation``), from where, for how long."""

    owner: str
    scopes: list[str]
    environment: str = "live"
    sources: list[str] = []
    life_seconds: float | None = None


class ApiKeyRotation(Message, frozen=True):
    """How long a key that is replaced goes on."""

    overlap_seconds: float | None = None


class ApiKeyView(Message, frozen=True):
    """One API key as the owner may see it; the key cannot be told from it."""

    lookup: str
    environment: str
    owner: str
    scopes: list[str]
    sources: list[str]
    state: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = None
    replaces: str | None = None
    replaced_by: str | None = None


class ApiKeyCreated(Message, frozen=True):
    """A new API key: ``key`` is shown once and kept nowhere."""

    key: str
    entry: ApiKeyView

    def __repr__(self) -> str:
        return f"ApiKeyCreated(entry={self.entry!r})"
