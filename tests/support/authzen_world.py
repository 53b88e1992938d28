# SPDX-License-Identifier: Apache-2.0
"""A policy with every kind of condition, asked over AuthZEN without HTTP; records go to a list."""

from dataclasses import dataclass, field

from tests.support.identity import FakeClock, TestEntropy

from everyhop.auditlog.append import AppendResult
from everyhop.authzen import Action, Entity, Evaluation
from everyhop.control.authzen_peps import Pep
from everyhop.control.authzen_point import DecisionPoints
from everyhop.control.decision_journal import DecisionJournal
from everyhop.policy import parse_policy

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}], attributes: {tier: front}}
  intruder: {workload: [{run: true}]}
  payments:
    workload: [{run: true}]
    operations: {charge: POST /charges}
  ledger: {workload: [{run: true}], tcp: 5432}
  orders:
    workload: [{run: true}]
    operations:
      list: GET /orders
      find: GET /orders/find
      read: GET /orders/{id}
      edit: PUT /orders/{id}
      file: GET /files/{path...}
      line: GET /orders/{id}/lines/{line}
      remote: POST /remote
      night: POST /night
      secure: POST /secure
      guarded: POST /guarded
      local: POST /local
      watched: POST /watched
      sized: POST /sized
      team: POST /team
roles:
  clerk: [orders.*]
  guest: [orders.list]
attributes:
  user: {department: string, clearance: {type: int, default: 0}, teams: strings, since: timestamp}
  device: {managed: bool}
  resource: {status: string, size: double}
  service: {tier: string}
  request: {headers: [x-region]}
allow:
  - {from: storefront, to: orders, operations: [list], user: optional}
  - {from: outside, to: orders, operations: [list, read], user: required}
  - {from: storefront, to: orders, operations: [read], user: required}
  - {from: storefront, to: orders, operations: [find]}
  - from: storefront
    to: orders
    operations: [edit]
    user: required
    when: resource.status == 'open' && user.clearance >= 2 && request.path_params.id == resource.id
  - {from: storefront, to: orders, operations: [file], when: request.path_params.path == 'a/b c'}
  - {from: storefront, to: orders, operations: [line], when: "request.path_params.id == 'o1' && request.path_params.line == '7'"}
  - {from: storefront, to: orders, operations: [remote], when: "request.headers['x-region'] == 'eu'"}
  - {from: storefront, to: orders, operations: [night], when: now.getHours() < 7}
  - {from: storefront, to: orders, operations: [secure], user: required, when: "user.mfa && user.acr == 'high' && user.since < now"}
  - {from: storefront, to: orders, operations: [guarded], when: device.managed}
  - {from: storefront, to: orders, operations: [local], when: "in_cidr(request.source_ip, '10.0.0.0/8')"}
  - {from: storefront, to: orders, operations: [watched], mode: shadow}
  - {from: storefront, to: orders, operations: [sized], when: resource.size < 2.0}
  - {from: storefront, to: orders, operations: [team], user: required, when: "'b' in user.teams && user.issuer == 'https://idp.example'"}
directory:
  users:
    ann: {roles: [clerk], attributes: {clearance: 3, department: sales}}
    gus: {roles: [guest]}
  resources:
    order:
      service: orders
      parameter: id
      items: {o1: {status: open}, o2: {status: closed}}
"""
SPIFFE = "spiffe://shop.example/service/"


def service(name):
    return Pep(name=SPIFFE + name, service=name)


STOREFRONT, ORDERS, INTRUDER = service("storefront"), service("orders"), service("intruder")
KEY = Pep(name="apikey:abcdefgh", scopes=frozenset({"orders.list"}))


@dataclass
class Store:
    records: list = field(default_factory=list)
    fails: bool = False

    def append(self, records):
        if self.fails:
            raise OSError
        self.records += records
        return AppendResult(stored=len(records), duplicates=0)


class World:
    def __init__(self, policy=POLICY):
        self.snapshot = parse_policy({"p.yaml": policy.encode()})
        self.store = Store()
        self.clock = FakeClock()
        self.points = DecisionPoints(
            snapshot=lambda: self.snapshot,
            journal=DecisionJournal(self.store, entropy=TestEntropy(), prefix="authzen"),
            clock=self.clock,
            entropy=TestEntropy(),
        )

    def ask(self, pep, subject, action, resource, **context):
        point = self.points.open(pep)
        asked = Evaluation(
            subject=entity(subject),
            action=action if isinstance(action, Action) else Action(name=action),
            resource=entity(resource),
            context=context,
        )
        answer = point.evaluate(asked)
        point.close()
        return answer

    def reason(self, *args, **context):
        answer = self.ask(*args, **context)
        return answer.context["reason"]


def entity(text, **properties):
    if isinstance(text, Entity):
        return text
    kind, _, name = text.partition(":")
    return Entity(type=kind, id=name, properties=properties)
