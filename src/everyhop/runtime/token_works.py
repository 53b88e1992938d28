# SPDX-License-Identifier: Apache-2.0
"""The server's token service and API keys, composed over one storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.apikeys import ApiKeys
from everyhop.control.token_control import TokenWorks
from everyhop.issuing import IssuingSettings, SigningKeys, TokenPorts, TokenService
from everyhop.jose.algorithms import Algorithm
from everyhop.providers.keystores import FileKeyStore
from everyhop.runtime.face import issuer_of
from everyhop.runtime.system import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from everyhop.control.policy_holder import PolicyHolder
    from everyhop.runtime.layout import StateLayout
    from everyhop.runtime.settings import Settings
    from everyhop.spiffe import TrustDomain
    from everyhop.storage import Storage


def token_works(
    storage: Storage, layout: StateLayout, settings: Settings, domain: TrustDomain, policy: PolicyHolder
) -> TokenWorks:
    """Compose and start them: the first signing key is made here, and a restart makes none.

    Raises TrustError when the keys of the state directory cannot be opened.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    keystore = FileKeyStore(layout.keys / "kek")
    rules = IssuingSettings(
        issuer=issuer_of(layout, settings),
        trust_domain=domain.name,
        algorithm=Algorithm(settings.token_algorithm),
        token_ttl=settings.token_ttl,
        transaction_ttl=settings.txn_ttl,
        max_age=settings.jwks_max_age,
        rotate_every=settings.signing_key_ttl,
    )
    keys = SigningKeys(store=storage.issuing, keystore=keystore, clock=clock, settings=rules)
    keys.start()
    api_keys = ApiKeys(
        store=storage.api_keys,
        keystore=keystore,
        edge_scopes=policy.edge_scopes,
        clock=clock,
        entropy=entropy,
    )
    ports = TokenPorts(
        keys=keys,
        store=storage.issuing,
        policy=policy,
        journal=storage.token_journal,
        clock=clock,
        entropy=entropy,
        api_keys=api_keys,
    )
    return TokenWorks(service=TokenService(ports, rules), api_keys=api_keys, journal=storage.token_journal)
