# SPDX-License-Identifier: Apache-2.0
"""The services of the demo: programs of their own that know nothing of everyhop but environment variables.

Each writes one line of JSON per request that reached it, and tells in its answer what it saw, so that the demo can
compare what was sent with what arrived.
"""
