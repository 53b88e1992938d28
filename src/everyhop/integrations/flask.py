# SPDX-License-Identifier: Apache-2.0
"""Flask: an extension that checks every request, and a decorator for single views.

app = Flask(__name__)
Everyhop(app)

@app.get("/orders")
@require("list")
def orders():
    return {"for": str(user()), "by": str(caller())}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from everyhop.integrations._missing import needs
from everyhop.integrations._views import require
from everyhop.integrations.wsgi import EveryhopMiddleware
from everyhop.sdk import caller, user
from everyhop.sdk.model import Refusal

with needs("Flask", module="flask"):
    from flask import Flask, Response

if TYPE_CHECKING:
    from everyhop.integrations._arrival import Checks

__all__ = ["Everyhop", "caller", "require", "user"]


class Everyhop:
    """The extension.  ``Everyhop(app)``, or ``everyhop = Everyhop()`` and later ``everyhop.init_app(app)``.

    ``guard`` defaults to the one of this process's workload, ``sidecar_socket`` to ``$EVERYHOP_SOCKET``.  It wraps
    ``app.wsgi_app``: a middleware that is put around it later stands before the check.
    """

    def __init__(
        self, app: Flask | None = None, guard: Checks | None = None, *, sidecar_socket: str | None = None
    ) -> None:
        self._guard = guard
        self._sidecar_socket = sidecar_socket
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve ``app`` to verified calls only."""
        if "everyhop" in app.extensions:
            raise RuntimeError("everyhop protects this application already")
        app.extensions["everyhop"] = self
        inner = app.wsgi_app
        app.wsgi_app = EveryhopMiddleware(  # type: ignore[method-assign]  # as Flask's documentation says
            cast("Any", inner), self._guard, sidecar_socket=self._sidecar_socket
        )
        app.register_error_handler(Refusal, _answer)


def _answer(refusal: Refusal) -> Response:
    return Response(refusal.body, refusal.status, headers=list(refusal.headers))
