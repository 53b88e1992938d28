# SPDX-License-Identifier: Apache-2.0
"""Those whom the policy exempts from blocks, as a container of subjects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.anomaly.model import Subject

if TYPE_CHECKING:
    from everyhop.policy.detect import Detection


class Exempt:
    """Holds every subject that the chapter ``detect`` exempts, by itself or by its network."""

    def __init__(self, detection: Detection) -> None:
        self._detection = detection

    def __contains__(self, subject: object) -> bool:
        return isinstance(subject, Subject) and self._detection.is_exempt(subject.kind.value, subject.value)
