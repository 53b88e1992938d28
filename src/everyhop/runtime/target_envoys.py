# SPDX-License-Identifier: Apache-2.0
"""The real Envoy as an evaluator: one for each service that is asked about, started when it is and a few at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from everyhop.evaluators.model import Outcome
from everyhop.runtime.target_envoy import TargetEnvoy
from everyhop.testing.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from everyhop.evaluators.model import Request

AT_A_TIME: Final = 4
"""Envoys that live at once; each takes about 70 MiB."""

_NOTHING: Final = Outcome(allowed=False, why="there is no Envoy before it")


class EnvoyEvaluator:
    """Asks the real Envoy of each service under its compiled bootstrap; a context, used outside of any event loop.

    ``files`` are those that target ``envoy`` compiles to, by path.  Callers are known by the SPIFFE IDs of the policy; an
    authority made for the occasion gives out their certificates.  Ports and addresses of requests are not looked at.
    """

    def __init__(self, files: Mapping[str, bytes], *, trust_domain: str, binary: Path | None = None) -> None:
        self._files = files
        self._authority = Authority(trust_domain)
        self._binary = binary
        self._runner = asyncio.Runner()
        self._living: OrderedDict[str, TargetEnvoy] = OrderedDict()

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every Envoy."""
        while self._living:
            self._end_oldest()
        self._runner.close()

    def evaluate(self, request: Request) -> Outcome:
        """Return what Envoy does with a request.

        Raises Unavailable when Envoy does not start or answer, SettingsError when there is none.  A service without files has
        nothing that would let anybody in.
        """
        bootstrap = self._files.get(f"envoy/{request.target.name}/bootstrap.json")
        if bootstrap is None:
            return _NOTHING
        return self._runner.run(self._envoy(request.target.name, bootstrap).ask(request))

    def _envoy(self, service: str, bootstrap: bytes) -> TargetEnvoy:
        found = self._living.get(service)
        if found is None:
            while len(self._living) >= AT_A_TIME:
                self._end_oldest()
            envoy = TargetEnvoy(bootstrap, authority=self._authority, binary=self._binary)
            found = self._living[service] = self._runner.run(envoy.__aenter__())
        self._living.move_to_end(service)
        return found

    def _end_oldest(self) -> None:
        _, envoy = self._living.popitem(last=False)
        self._runner.run(envoy.__aexit__(None, None, None))
