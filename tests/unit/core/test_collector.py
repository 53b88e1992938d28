# SPDX-License-Identifier: Apache-2.0
"""The collector is running again after the block, whatever happened in it."""

from __future__ import annotations

import gc

import pytest

from everyhop.core.collector import collector_paused


@pytest.fixture(autouse=True)
def running():
    gc.enable()
    yield
    gc.enable()


def test_it_runs_again_after_an_error():
    with pytest.raises(ValueError, match="inside"), collector_paused():
        assert not gc.isenabled()
        raise ValueError("inside")
    assert gc.isenabled()


def test_an_inner_block_does_not_start_it():
    with collector_paused():
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_program_that_switched_it_off_finds_it_off():
    gc.disable()
    with collector_paused():
        assert not gc.isenabled()
    assert not gc.isenabled()
