# SPDX-License-Identifier: Apache-2.0
"""Write the message modules of ``everyhop.wire`` from its ``.proto`` files.

Usage: python tools/generate_wire.py [--check]

For every ``proto/NAME.proto`` there is ``NAME_pb2.py`` (the serialized schema, handed to
``everyhop.wire.schema.build``) and ``NAME_pb2.pyi`` (protoc's type stubs).  With ``--check`` nothing is
written and the exit code is 1 when a file would change.  Needs grpcio-tools; nothing at run time does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOM = Path(__file__).resolve().parents[1] / "src" / "everyhop" / "wire"
HEADER = "# SPDX-License-Identifier: Apache-2.0\n"
WIDTH = 24  # bytes of schema per line: diffs stay local


def compile_schema(name: str, into: Path) -> tuple[str, str]:
    """Return the texts of ``NAME_pb2.py`` and ``NAME_pb2.pyi``; raises SystemExit when protoc refuses."""
    import grpc_tools
    from grpc_tools import protoc

    builtin = Path(grpc_tools.__file__).parent / "_proto"
    described = into / f"{name}.bin"
    code = protoc.main(
        [
            "protoc",
            f"-I{ROOM / 'proto'}",
            f"-I{builtin}",
            f"--descriptor_set_out={described}",
            f"--pyi_out={into}",
            f"{name}.proto",
        ]
    )
    if code:
        raise SystemExit(code)
    file = descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes()).file[0]
    return module_text(file), HEADER + (into / f"{name}_pb2.pyi").read_text()


def module_text(file: descriptor_pb2.FileDescriptorProto) -> str:
    """Return the module that registers one schema."""
    raw = file.SerializeToString(deterministic=True)
    lines = [f"    {raw[start : start + WIDTH]!r}" for start in range(0, len(raw), WIDTH)]
    return "\n".join(
        [
            HEADER.rstrip(),
            f'"""Messages of proto/{file.name}; written by tools/generate_wire.py, not by hand."""',
            "",
            "from __future__ import annotations",
            "",
            "from everyhop.wire.schema import build",
            "",
            "_SCHEMA = (",
            *lines,
            ")",
            "build(_SCHEMA, globals())",
            "",
        ]
    )


def outdated(*, write: bool) -> list[Path]:
    """Return the generated files that differ from what the schemas give; bring them up to date if asked."""
    changed = []
    for schema in sorted((ROOM / "proto").glob("*.proto")):
        with tempfile.TemporaryDirectory() as scratch:
            texts = compile_schema(schema.stem, Path(scratch))
        for suffix, text in zip(("_pb2.py", "_pb2.pyi"), texts, strict=True):
            target = ROOM / f"{schema.stem}{suffix}"
            if target.exists() and target.read_text() == text:
                continue
            changed.append(target)
            if write:
                target.write_text(text)
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a file is out of date"
    )
    check = parser.parse_args(arguments).check
    changed = outdated(write=not check)
    for path in changed:
        print(f"{'out of date' if check else 'wrote'}: {path.relative_to(ROOM.parents[2])}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
