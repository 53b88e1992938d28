# SPDX-License-Identifier: Apache-2.0
"""The server's token service and API keys, composed over one storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.apikeys import ApiKeys
from everyhop.control.canaries import CanaryControl, open_marker
from everyhop.control.token_control import TokenWorks
from everyhop.issuing import IssuingSettings, SigningKeys, TokenPorts, TokenService
from everyhop.jose.algorithms import Algorithm
from everyhop.providers.keystores import FileKeyStore
from everyhop.providers.oidc import OidcTokens
from everyhop.runtime.face import issuer_of
from everyhop.runtime.system import SystemClock, SystemEntropy
from everyhop.spiffe.jwt_svid import validate_jwt_svid

if TYPE_CHECKING:
    from datetime import datetime

    from everyhop.authority import Authority
    from everyhop.control.policy_holder import PolicyHolder
    from everyhop.control.responding import BlocksInForce
    from everyhop.runtime.layout import StateLayout
    from everyhop.runtime.settings import Settings
    from everyhop.storage import Storage


class SvidSubjects:
    """JWT-SVIDs of this trust domain as proof of who acts: only those for the issuer of tokens count."""

    def __init__(self, authority: Authority, issuer: str) -> None:
        self._authority = authority
        self._issuer = issuer

    def subject(self, token: str, *, now: datetime) -> str:
        """Return the SPIFFE ID that a JWT-SVID proves.  Raises InputError or SvidError."""
        svid = validate_jwt_svid(token, self._authority.bundle(), audience=self._issuer, now=now)
        return str(svid.spiffe_id)


def token_works(
    storage: Storage,
    layout: StateLayout,
    settings: Settings,
    *,
    authority: Authority,
    policy: PolicyHolder,
    blocks: BlocksInForce,
) -> TokenWorks:
    """Compose and start them: the first signing key is made here, and a restart makes none.

    Raises TrustError when the keys of the state directory cannot be opened.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    keystore = FileKeyStore(layout.keys / "kek")
    rules = IssuingSettings(
        issuer=issuer_of(layout, settings),
        trust_domain=authority.trust_domain.name,
        algorithm=Algorithm(settings.token_algorithm),
        token_ttl=settings.token_ttl,
        transaction_ttl=settings.txn_ttl,
        max_age=settings.jwks_max_age,
        rotate_every=settings.signing_key_ttl,
    )
    keys = SigningKeys(store=storage.issuing, keystore=keystore, clock=clock, settings=rules)
    keys.start()
    canaries = CanaryControl(
        store=storage.canaries,
        marker=open_marker(storage.meta, keystore, entropy),
        clock=clock,
        entropy=entropy,
        snapshot=lambda: policy().snapshot,
        edge_scopes=policy.edge_scopes,
    )
    api_keys = ApiKeys(
        store=storage.api_keys,
        keystore=keystore,
        edge_scopes=policy.edge_scopes,
        clock=clock,
        entropy=entropy,
        canaries=canaries,
    )
    ports = TokenPorts(
        keys=keys,
        store=storage.issuing,
        policy=policy,
        journal=storage.token_journal,
        clock=clock,
        entropy=entropy,
        api_keys=api_keys,
        users=OidcTokens(lambda: policy().snapshot.user_issuers),
        workloads=SvidSubjects(authority, rules.issuer),
        blocks=blocks,
    )
    return TokenWorks(
        service=TokenService(ports, rules),
        api_keys=api_keys,
        journal=storage.token_journal,
        canaries=canaries,
    )
