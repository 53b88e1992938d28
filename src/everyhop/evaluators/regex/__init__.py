# SPDX-License-Identifier: Apache-2.0
"""Regular expressions as proxies read them: in linear time, whatever a foreign manifest holds, and never as a guess.

Read is what RE2 (Envoy, so Cilium and Istio) and Rust's ``regex`` (Linkerd) agree on; what they differ over, or what is rare, is
an InputError: flags but ``(?i)`` in front and ``(?i:...)``, look-around, back references, word boundaries, Unicode classes, set operations.
"""

from everyhop.evaluators.regex.matching import FirstMatch, FullMatch
from everyhop.evaluators.regex.size import program_size

__all__ = ["FirstMatch", "FullMatch", "program_size"]
