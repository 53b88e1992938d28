# SPDX-License-Identifier: Apache-2.0
"""What a mesh, a network or a proxy decides under given manifests, ours or foreign.

Each module is an independent implementation of one system's evaluation semantics, written from that system's documents, which
its docstring names.  Nothing here knows how we compile: the room imports neither the policy nor the targets.
"""
