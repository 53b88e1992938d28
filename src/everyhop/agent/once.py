# SPDX-License-Identifier: Apache-2.0
"""Tokens for operations where a token is good for one call: a small stock each, grown by demand."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from everyhop.agent.minting import Minting, ServiceToken, TokenWish
    from everyhop.core.clock import Clock

FIRST_STOCK: Final = 4
LARGEST_STOCK: Final = 64
MAX_STOCKS: Final = 1024
LEAST_LIFE_SECONDS: Final = 10


@dataclass(slots=True)
class _Stock:
    size: int = FIRST_STOCK
    tokens: deque[ServiceToken] = field(default_factory=deque)
    refilling: asyncio.Task[None] | None = None


class OnceStock:
    """Fresh single-use tokens; each is given away once.  All use is from one event loop."""

    def __init__(self, *, minting: Minting, clock: Clock) -> None:
        self._minting = minting
        self._clock = clock
        self._stocks: OrderedDict[TokenWish, _Stock] = OrderedDict()

    async def take(self, wish: TokenWish) -> ServiceToken:
        """Return a token that nobody else gets; raises as :meth:`Minting.mint` when there is none to be had."""
        stock = self._stocks.setdefault(wish, _Stock())
        self._stocks.move_to_end(wish)
        while len(self._stocks) > MAX_STOCKS:
            self._stocks.popitem(last=False)
        while True:
            token = self._pop(stock)
            if token is not None:
                if len(stock.tokens) <= stock.size // 4:
                    self._refill(wish, stock).add_done_callback(_quiet)
                return token
            await asyncio.shield(self._refill(wish, stock))

    def drop(self, is_bad: Callable[[ServiceToken], bool]) -> None:
        """Forget tokens that nobody would believe."""
        for stock in self._stocks.values():
            stock.tokens = deque(token for token in stock.tokens if not is_bad(token))

    def keep_only(self, x5ts: Collection[str]) -> None:
        """Forget the stocks of certificates that are not in use any more."""
        for wish in [wish for wish in self._stocks if wish.x5t not in x5ts]:
            del self._stocks[wish]

    def _pop(self, stock: _Stock) -> ServiceToken | None:
        least = self._clock.now().timestamp() + LEAST_LIFE_SECONDS
        while stock.tokens:
            token = stock.tokens.popleft()
            if token.expires_at > least:
                return token
            stock.size = FIRST_STOCK  # they grew old on the shelf: fewer will do
        return None

    def _refill(self, wish: TokenWish, stock: _Stock) -> asyncio.Task[None]:
        """Fetch once for everybody who waits."""
        if stock.refilling is None:
            stock.refilling = asyncio.create_task(self._fetch(wish, stock))
        return stock.refilling

    async def _fetch(self, wish: TokenWish, stock: _Stock) -> None:
        try:
            stock.tokens.extend(await self._minting.mint(wish, count=stock.size))
            stock.size = min(stock.size * 2, LARGEST_STOCK)
        finally:
            stock.refilling = None


def _quiet(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # the next who finds the shelf empty meets it again
