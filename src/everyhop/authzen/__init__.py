# SPDX-License-Identifier: Apache-2.0
"""AuthZEN Authorization API 1.0, as a PDP speaks it: bytes in, JSON out; who decides stands behind a port.

Pure: no IO, no clock.  What a subject, an action or a resource means is the decision point's affair
(``control.authzen``); here is what the standard says about asking and answering.
"""

from everyhop.authzen.evaluating import answer_evaluation, answer_evaluations
from everyhop.authzen.metadata import metadata
from everyhop.authzen.model import Action, Answer, Entity, Evaluation, Json, Kind, Search, Semantic
from everyhop.authzen.paging import PageTokens
from everyhop.authzen.parse import check_media_type
from everyhop.authzen.ports import DecisionPoint
from everyhop.authzen.searching import Bounds, answer_search

__all__ = [
    "Action",
    "Answer",
    "Bounds",
    "DecisionPoint",
    "Entity",
    "Evaluation",
    "Json",
    "Kind",
    "PageTokens",
    "Search",
    "Semantic",
    "answer_evaluation",
    "answer_evaluations",
    "answer_search",
    "check_media_type",
    "metadata",
]
