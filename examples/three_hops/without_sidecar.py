# SPDX-License-Identifier: Apache-2.0
"""Serve an application with mutual TLS of its own: ``python3 without_sidecar.py orders 9402``."""

import sys
from importlib import import_module

from everyhop.integrations import own_workload
from everyhop.sdk import server_context, uvicorn_config

name, port = sys.argv[1], int(sys.argv[2])
app = import_module(name).app
workload = own_workload()

if name == "billing":  # WSGI
    from werkzeug.serving import run_simple

    context = server_context(workload.x509, workload)
    run_simple("127.0.0.1", port, app, ssl_context=context, threaded=True)
else:  # ASGI
    import uvicorn

    uvicorn.Server(uvicorn_config(app, workload.x509, workload, port=port)).run()
