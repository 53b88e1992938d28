# SPDX-License-Identifier: Apache-2.0
"""The third hop, Flask: the user has come all the way, with a token for each hop."""

from flask import Flask

from everyhop.integrations.flask import Everyhop, caller, require, user

app = Flask(__name__)
Everyhop(app)


@app.post("/charges")
@require("charge")
def charge() -> list[str]:
    """Charge the user."""
    seen = f"billing: {user()} by {caller().service}"
    print(seen, flush=True)
    return [seen]
