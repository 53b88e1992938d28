# SPDX-License-Identifier: Apache-2.0
"""The real Envoy as an evaluator: one for each service that is asked about, started when it is and a few at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.model import Outcome
from everyhop.proving.systems import System
from everyhop.runtime.target_envoy import TargetEnvoy
from everyhop.runtime.target_places import service_of
from everyhop.targets.envoy.compiling import BOOTSTRAP
from everyhop.testing.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from everyhop.evaluators.model import Request
    from everyhop.proving.systems import Builder, Material

AT_A_TIME: Final = 4
"""Envoys that live at once; each takes about 70 MiB."""

_NOTHING: Final = Outcome(allowed=False, why="nothing listens there")


class EnvoyEvaluator:
    """Asks the real Envoy of each service under its compiled bootstrap; a context, used outside of any event loop.

    ``files`` are those that target ``envoy`` compiles to, by path; of them, each ``bootstrap.json`` is run, for the service that it
    names.  Raises InputError without any, or for two of one service.  Callers are known by the SPIFFE IDs of the policy; an
    authority made for the occasion gives out their certificates.  ``ports`` has the port that requests to a service name when
    they mean its door: at another one nothing listens.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        *,
        trust_domain: str,
        ports: Mapping[str, int] | None = None,
        binary: Path | None = None,
    ) -> None:
        self._bootstraps = _bootstraps(files)
        self._ports = ports or {}
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
        service = request.target.name
        bootstrap = self._bootstraps.get(service)
        if bootstrap is None or self._ports.get(service, request.port) != request.port:
            return _NOTHING
        return self._runner.run(self._envoy(service, bootstrap).ask(request))

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


def _bootstraps(files: Mapping[str, bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path, content in files.items():
        if PurePosixPath(path).name == BOOTSTRAP:
            service = service_of(content)
            if service in found:
                raise InputError(f"{path}: there is another bootstrap of {service}")
            found[service] = content
    if not found:
        raise InputError(f"there is no {BOOTSTRAP} of an Envoy among the files")
    return found


@contextmanager
def envoy_builder(binary: Path | None = None) -> Iterator[Builder]:
    """Give what makes target ``envoy`` a system that can be proven (``builders`` of ``prove_policy``): the real program.

    What it starts ends with the context.
    """
    with ExitStack() as stack:

        def build(material: Material) -> System:
            intents = material.view.intents
            evaluator = EnvoyEvaluator(
                material.files,
                trust_domain=intents.snapshot.trust_domain.name,
                ports={service.name: service.port for service in intents},
                binary=binary,
            )
            return System(
                name=material.target,
                evaluator=stack.enter_context(evaluator),
                view=material.view,
                diagnostics=material.diagnostics,
                is_own_form=True,
                sees_egress=False,
            )

        yield build
