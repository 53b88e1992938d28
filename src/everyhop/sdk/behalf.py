# SPDX-License-Identifier: Apache-2.0
"""Act for a user whose token was just exchanged: the first service of a chain, and work that no call began."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from everyhop.core.secret import Secret
from everyhop.sdk.clock import SystemClock
from everyhop.sdk.model import Caller, Verified
from everyhop.sdk.propagation import current, serving
from everyhop.sdk.trace import new_trace
from everyhop.sdk.verification import Verification, user_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.sdk.context import ContextSource
    from everyhop.sdk.model import User


@contextmanager
def on_behalf_of(source: ContextSource, txn_token: str) -> Iterator[User]:
    """Carry a transaction token on the calls made inside the ``with`` block, and give its user.

    ``txn_token`` is what :meth:`everyhop.sdk.TokenSource.exchange` returned; it is verified like one that was
    received.  Inside, ``user()`` is its user; outside of a call, ``caller()`` is this workload itself.  Raises
    TokenError, and what ``source.context`` raises.
    """
    context = source.context
    user = user_of(Verification(context, SystemClock()).verifier.transaction(txn_token))
    here = current() or Verified(
        caller=Caller(spiffe_id=str(context.spiffe_id)),
        user=None,
        operation="",
        decision_id="",
        snapshot=context.snapshot,
        trace=new_trace(),
    )
    with serving(replace(here, user=user, txn_token=Secret(txn_token.encode("ascii")))):
        yield user
