# SPDX-License-Identifier: Apache-2.0
"""How hypothesis runs here: without deadlines (the machine is shared), and as long as the profile says.

``EVERYHOP_EXAMPLES=2000`` searches longer.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "everyhop",
    max_examples=int(os.environ.get("EVERYHOP_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("everyhop")
