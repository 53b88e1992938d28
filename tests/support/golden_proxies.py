# SPDX-License-Identifier: Apache-2.0
"""Golden outputs for proxies and hosts: read by a person once, and then only changed on purpose.

``EVERYHOP_UPDATE_GOLDEN=1`` writes them anew; read the difference before you commit it.
"""

import os
from pathlib import Path

from everyhop.policy import parse_policy
from everyhop.targets import compile_policy

HERE = Path(__file__).resolve().parents[1] / "golden" / "proxies"


def check_golden(target, beside=()):
    """Compare what the golden policy compiles to with the files that were reviewed."""
    policy = (HERE / "policy.yaml").read_bytes()
    (found,) = compile_policy(parse_policy({"policy.yaml": policy}), [target], beside=beside)
    written = {file.path: file.content for file in found.files}
    if os.environ.get("EVERYHOP_UPDATE_GOLDEN"):
        for path, content in written.items():
            (HERE / path).parent.mkdir(parents=True, exist_ok=True)
            (HERE / path).write_bytes(content)
    kept = {
        str(path.relative_to(HERE)): path.read_bytes()
        for path in HERE.glob(f"{target}/**/*")
        if path.is_file()
    }
    assert sorted(written) == sorted(kept)
    for path, content in written.items():
        assert content.decode() == kept[path].decode(), path
