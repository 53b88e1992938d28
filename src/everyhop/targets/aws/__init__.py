# SPDX-License-Identifier: Apache-2.0
"""AWS at the edge: Verified Access with Cedar for people, and the routes of an HTTP API, as Terraform in JSON.

Only what the policy opens to ``outside`` is here.  Calls between services have no counterpart in either system, and that is said.
No IAM is written; what exists in the account (certificates, networks, back ends) are Terraform variables.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from everyhop.targets.aws.edge import edge_doors
from everyhop.targets.aws.gateway import gateway_document
from everyhop.targets.aws.verified_access import verified_access_document
from everyhop.targets.model import File

if TYPE_CHECKING:
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

__all__ = ["TARGET", "Aws"]


class Aws:
    """The compiler; a file for each of the two systems, where the policy has something for it."""

    name = "aws"
    summary = (
        "AWS Verified Access (Cedar) and API Gateway routes for what is open to outside, as Terraform JSON"
    )

    def compile(self, view: View) -> tuple[list[File], list[Diagnostic]]:
        """Return ``aws/*.tf.json``, and what the edge cannot hold or is not about."""
        doors, found = edge_doors(view)
        documents = {
            "api_gateway": gateway_document(view, doors, found),
            "verified_access": verified_access_document(view, doors, found),
        }
        files = [
            File(path=f"aws/{name}.tf.json", content=(json.dumps(document, indent=2) + "\n").encode())
            for name, document in documents.items()
            if document is not None
        ]
        return files, list(dict.fromkeys(found))


TARGET: Final = Aws()
