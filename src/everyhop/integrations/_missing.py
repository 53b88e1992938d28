# SPDX-License-Identifier: Apache-2.0
"""A clear word when the framework that a glue is for is not installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needs(package: str, *, module: str | None = None) -> Iterator[None]:
    """Turn the absence of ``module`` (default: as ``package``) into an ImportError that says what to install.

    An import that fails for another reason passes as it is.
    """
    name = module or package
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name:
            raise
        message = f"everyhop.integrations needs {package} here, which is not installed: pip install {package}"
        raise ImportError(message, name=name) from error
