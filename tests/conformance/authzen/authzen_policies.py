# SPDX-License-Identifier: Apache-2.0
"""Policies for the AuthZEN checks, in our language: the certification fixture, and three interop shapes."""

from __future__ import annotations

# The fixture of the certification scenario, section 3: eight decisions and six searches follow from it.
CERTIFICATION = """\
version: 1
trust_domain: shop.example
services:
  gateway: {workload: [{run: true}]}
  records:
    workload: [{run: true}]
    operations:
      read: GET /records/{id}
      write: PUT /records/{id}
      delete: DELETE /records/{id}
roles:
  reader: [records.read]
  editor: {includes: [reader], grants: [records.write, records.delete]}
  archivist: {includes: [reader], grants: [records.write]}
attributes:
  user: {role: {type: string, default: none}}
  resource: {status: string}
allow:
  - {from: CALLER, to: records, operations: [read], user: required}
  - from: CALLER
    to: records
    operations: [write]
    user: required
    when: resource.status == 'active' && has_role(user.roles, 'editor')
  - from: CALLER
    to: records
    operations: [write]
    user: required
    when: resource.status == 'archived' && user.role == 'admin'
  - {from: CALLER, to: records, operations: [delete], user: required, when: request.query.soft == 'true'}
directory:
  users:
    alice: {roles: [editor]}
    bob: {roles: [archivist], attributes: {role: admin}}
  resources:
    record:
      service: records
      parameter: id
      items:
        record-1: {status: active}
        record-2: {status: archived}
"""

# The shape of the todo interop: people by opaque ids, todos whose owner the PEP states, five actions, four roles.
TODO = """\
version: 1
trust_domain: shop.example
services:
  gateway: {workload: [{run: true}]}
  todo:
    workload: [{run: true}]
    operations:
      can_read_user: GET /people/{person}
      can_read_todos: GET /todos
      can_create_todo: POST /todos
      can_update_todo: PUT /todos/{todo}
      can_delete_todo: DELETE /todos/{todo}
roles:
  viewer: [todo.can_read_user, todo.can_read_todos]
  editor:
    includes: [viewer]
    grants: [todo.can_create_todo, todo.can_update_todo, todo.can_delete_todo]
  chief: {includes: [editor], grants: [todo.can_delete_todo]}
  tyrant: {includes: [chief]}
attributes:
  user: {email: string}
  resource: {ownerid: string}
allow:
  - from: gateway
    to: todo
    operations: [can_read_user, can_read_todos, can_create_todo]
    user: required
  - {from: gateway, to: todo, operations: [can_update_todo], user: required, when: "has_role(user.roles, 'tyrant')"}
  - {from: gateway, to: todo, operations: [can_update_todo], user: required, when: resource.ownerid == user.email}
  - from: gateway
    to: todo
    operations: [can_delete_todo]
    user: required
    when: has_role(user.roles, 'chief') || has_role(user.roles, 'tyrant') || resource.ownerid == user.email
directory:
  users:
    Q2hpZWY: {roles: [chief], attributes: {email: nora@mill.example}}
    VHlyYW50: {roles: [tyrant], attributes: {email: olga@mill.example}}
    RWRpdG9y: {roles: [editor], attributes: {email: piet@mill.example}}
    Vmlld2Vy: {roles: [viewer], attributes: {email: quin@mill.example}}
    Vmlld2VyMg: {roles: [viewer], attributes: {email: rosa@mill.example}}
  resources:
    user: {service: todo, parameter: person}
    todo: {service: todo, parameter: todo}
"""

# The shape of the API gateway interop: an identity, a method, the template of a route.
GATEWAY = TODO

# The shape of the search interop: departments and owners, three actions, search in all three directions.
SEARCH = """\
version: 1
trust_domain: shop.example
services:
  gateway: {workload: [{run: true}]}
  library:
    workload: [{run: true}]
    operations:
      view: GET /scrolls/{id}
      edit: PUT /scrolls/{id}
      delete: DELETE /scrolls/{id}
roles:
  worker: [library.*]
  manager: {includes: [worker]}
attributes:
  user: {department: string}
  resource: {department: string, owner: string}
allow:
  - {from: gateway, to: library, operations: all, user: required, when: resource.owner == user.id}
  - {from: gateway, to: library, operations: [view], user: required, when: resource.department == user.department}
  - {from: gateway, to: library, operations: [view], user: required, when: "has_role(user.roles, 'manager')"}
  - from: gateway
    to: library
    operations: [edit]
    user: required
    when: has_role(user.roles, 'manager') && resource.department == user.department
directory:
  users:
    ida: {roles: [manager], attributes: {department: press}}
    jon: {roles: [worker], attributes: {department: press}}
    kim: {roles: [manager], attributes: {department: vault}}
    lea: {roles: [worker], attributes: {department: vault}}
    max: {roles: [worker], attributes: {department: stage}}
  resources:
    scroll:
      service: library
      parameter: id
      items:
        s1: {department: press, owner: ida}
        s2: {department: press, owner: jon}
        s3: {department: press, owner: lea}
        s4: {department: vault, owner: kim}
        s5: {department: vault, owner: jon}
        s6: {department: stage, owner: max}
        s7: {department: stage, owner: kim}
        s8: {department: attic, owner: ida}
"""
