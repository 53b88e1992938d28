# SPDX-License-Identifier: Apache-2.0
"""The way in for OPA's Envoy plugin: its input (``envoy.service.auth.v3.CheckRequest``) in the words of the contract.

The target's name comes from the filter's ``context_extensions``, which a client cannot set; the caller from the certificate that
Envoy verified; a token from what Envoy's ``jwt_authn`` filter verified and put into its metadata as ``everyhop_token``.
"""

from __future__ import annotations

from typing import Final

ENVOY: Final = """
package PACKAGE_envoy

import data.PACKAGE as rules

request := input.attributes.request.http

default caller := ""

caller := input.attributes.source.principal

default claims := {}

claims := input.attributes.metadataContext.filterMetadata["envoy.filters.http.jwt_authn"].everyhop_token

audiences := claims.aud if is_array(claims.aud)

audiences := [claims.aud] if is_string(claims.aud)

token := {"token": {
	"issuer": claims.iss,
	"subject": claims.sub,
	"audiences": audiences,
	"thumbprint": object.get(claims, ["cnf", "x5t#S256"], ""),
}}

default stated := {}

stated := token

default address := null

address := input.attributes.source.address.socketAddress.address

# A header that came more than once is one text with commas here, which the rules do not read.
headers := {name: [value] |
	some name
	value := request.headers[name]
}

question := object.union(stated, {
	"caller": caller,
	"target": input.attributes.contextExtensions.everyhop_target,
	"method": request.method,
	"path": request.path,
	"headers": headers,
	"source_ip": address,
})

default result := {"allowed": false, "http_status": 403}

result := {
	"allowed": decision.allow,
	"http_status": decision.status,
	"headers": {"x-everyhop-reason": decision.reason},
} if {
	decision := rules.decision with input as question
}
"""
