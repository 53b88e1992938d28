# SPDX-License-Identifier: Apache-2.0
"""The rules that every bundle has, in Rego v1; what differs from policy to policy is data, conditions and facts.

The reasons are those of everyhop's own decision as far as they are the same; the order in which they are looked for too.
"""

from __future__ import annotations

from typing import Final

BASE: Final = """
default allow := false

allow if decision.allow

default decision := {"allow": false, "status": 403, "reason": "undecided", "operation": null, "rule": null}

decision := {
	"allow": reason in {"allowed", "probe"},
	"status": object.get({"allowed": 200, "probe": 200, "ambiguous-path": 400, "token-required": 401, "user-required": 401}, reason, 403),
	"reason": reason,
	"operation": object.get({"door": door_name}, "door", null),
	"rule": rule,
	"policy": policy.revision,
} if {
	door
}

decision := {
	"allow": false,
	"status": object.get({"ambiguous-path": 400}, reason, 403),
	"reason": reason,
	"operation": null,
	"rule": null,
	"policy": policy.revision,
} if {
	not door
}

# -- who, and at which door

service := policy.services[input.target]

caller := "outside" if input.caller == "outside"

caller := policy.callers[input.caller]

default is_connection := false

is_connection if input.connection == "tcp"

default is_tcp := false

is_tcp if service.tcp

bare_path := split(input.path, "?")[0]

default is_spelt_out := false

is_spelt_out if service.exact[bare_path]

default is_clean := false

is_clean if is_spelt_out

is_clean if regex.match(service.clean, bare_path)

door_name := "tcp" if {
	is_tcp
	is_connection
}

door_name := service.exact[bare_path][input.method] if not is_connection

door_name := service.templates[first].door if {
	not is_connection
	not is_spelt_out
	is_clean
	found := [place |
		some place
		one := service.templates[place]
		one.method == input.method
		regex.match(one.pattern, bare_path)
	]
	first := min(found)
}

door := service.doors[door_name]

grant := one if {
	some one in door.grants
	policy.sets[one.callers][caller]
}

# -- what is decided

reason := "unknown-service" if {
	not service
} else := "wrong-protocol" if {
	is_tcp != is_connection
} else := "ambiguous-path" if {
	not is_connection
	not is_clean
} else := "unknown-operation" if {
	not door
} else := "unknown-caller" if {
	not caller
} else := "no-rule" if {
	not grant
} else := "denied-by-rule" if {
	some condition in grant.unless
	not is_false(condition)
} else := "token-required" if {
	not has_token
} else := "probe" if {
	door.probe
} else := "allowed" if {
	count(ways) > 0
} else := "user-required" if {
	not has_user
	some way in grant.ways
	way.user == "required"
} else := "user-not-permitted" if {
	has_user
	not is_permitted
	some way in grant.ways
	way.user != "none"
} else := "condition-false"

# The ways by which a call may come in, first those that count first: with a user, those that are about users.
ways := [way | some way in grant.ways; user_fits(way); condition_fits(way)]

ways_for_users := [way | some way in ways; way.user != "none"]

default rule := null

rule := door.rule if reason == "probe"

rule := ways_for_users[0].rule if {
	reason == "allowed"
	has_user
	count(ways_for_users) > 0
}

rule := ways[0].rule if {
	reason == "allowed"
	not has_user
}

rule := ways[0].rule if {
	reason == "allowed"
	count(ways_for_users) == 0
}

# -- tokens and users, verified by whoever asks

default has_token := false

has_token if not door.audience

has_token if {
	input.token.issuer == policy.issuer
	door.audience in input.token.audiences
	subject_fits
	binding_fits
}

subject_fits if caller == "outside"

subject_fits if input.token.subject == input.caller

binding_fits if not door.bound

binding_fits if {
	is_string(input.thumbprint)
	count(input.thumbprint) > 0
	input.token.thumbprint == input.thumbprint
}

default has_user := false

has_user if is_string(input.user.id)

user_fits(way) if way.user == "none"

user_fits(way) if {
	way.user == "optional"
	not has_user
}

user_fits(way) if {
	way.user != "none"
	has_user
	is_permitted
}

default is_permitted := false

is_permitted if not policy.asks_for_roles

is_permitted if {
	some role in user_roles
	role in door.granting
}

default directory := {}

directory := policy.users[input.user.id] if {
	has_user
	policy.directory_is_of_any_issuer
}

directory := policy.users[input.user.id] if {
	has_user
	not policy.directory_is_of_any_issuer
	object.get(input.user, "issuer", null) == null
}

given_roles := [role | some role in object.get(input.user, "roles", [])]

user_roles := array.concat(given_roles, [role | some role in object.get(directory, "roles", []); not role in given_roles]) if has_user
"""
"""Everything but the head of the module and what conditions need."""

WITHOUT_CONDITIONS: Final = """
condition_fits(way) if not way.when

is_false(_) := false
"""

WITH_CONDITIONS: Final = """
# -- conditions: true, false, or neither, which is an error and opens nothing

condition_fits(way) if not way.when

condition_fits(way) if is_true(way.when)

user_attributes := object.union_n([policy.defaults.user, known(input.user, "attributes"), object.get(directory, "attributes", {})]) if has_user

device_attributes := object.union(policy.defaults.device, known(input, "device"))

known(holder, part) := {name: value |
	given := object.get(holder, part, {})
	some name
	value := given[name]
	value != null
}

headers(names) := {name: lines[0] |
	some name in names
	lines := object.get(input, ["headers", name], [])
	count(lines) > 0
} if {
	every name in names {
		is_single(object.get(input, ["headers", name], []))
	}
}

is_single(lines) if {
	is_array(lines)
	count(lines) == 0
}

is_single(lines) if {
	is_array(lines)
	count(lines) == 1
	regex.match("^[\\t !-+.-~-]*$", lines[0])
}

# A fact of another type than the declared one is an error of the whole condition that reads it.

fits_bool(value) if value == null

fits_bool(value) if is_boolean(value)

fits_whole(value) if value == null

fits_whole(value) if {
	is_number(value)
	value == floor(value)
	value >= -9223372036854775808
	value < 9223372036854775808
}

fits_number(value) if value == null

fits_number(value) if is_number(value)

fits_text(value) if value == null

fits_text(value) if is_text(value)

fits_texts(value) if value == null

fits_texts(value) if {
	is_array(value)
	count(value) <= 4096
	every one in value { is_text(one) }
	sum([count(one) | some one in value]) <= 1048576
}

fits_headers(names) if {
	every name in names {
		every line in object.get(input, ["headers", name], []) { is_text(line) }
	}
}

is_text(value) if {
	is_string(value)
	count(value) <= 65536
	not contains(value, "\\u0000")
}
"""
