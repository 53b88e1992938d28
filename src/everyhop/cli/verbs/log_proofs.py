# SPDX-License-Identifier: Apache-2.0
"""``everyhop log verify|prove|export|rotate-key|restart``: what the audit log proves, and to whom."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.cli.arguments import add_verb, admin, layout_of
from everyhop.cli.log_export import Way
from everyhop.cli.output import paint, print_error, print_json, printable, say, wants_json

if TYPE_CHECKING:
    from everyhop.auditlog.completeness import Completeness
    from everyhop.auditlog.verdict import Verdict

INTACT: Final = 0
TAMPERED: Final = 1
UNVERIFIED: Final = 2

_VERIFY = """\
Checks every record against what the log's key signed, in the database (also while the server runs, or after it
stopped), in a directory of tiles, or at a URL.  A checkpoint that was kept elsewhere (--against) proves that the end is
not missing.  A receipt needs nothing but the public key.

Of the database, completeness is told apart: numbers of producers that are missing, records that they did not sign.

exit codes: 0 intact and complete · 1 tampered, or not what a producer signed · 2 cannot be verified, or incomplete

examples:
  everyhop log verify
  everyhop log verify --against /backup/checkpoint --vkey log.vkey
  everyhop log verify --tiles /srv/log --vkey log.vkey
  everyhop log verify --url https://127.0.0.1:23456/log --vkey log.vkey --svid siem/
  everyhop log verify --receipt refund.tlog-proof --vkey log.vkey
"""
_PROVE = """\
Writes the record, the proof that it is in the log, and the signed checkpoint into one file, which anybody can check
with the log's public key alone: everyhop log verify --receipt FILE --vkey VKEY

example:
  everyhop log prove 0f3a9c… --out refund.tlog-proof
"""
_ROTATE = """\
The new key signs beside the old one from now on, so those who trust the old one have time to learn the new one
(`log.vkey` of an export, /log/vkey of the face).  --retire ends all keys but the newest.

examples:
  everyhop log rotate-key
  everyhop log rotate-key --retire
"""
_WITNESS = """\
Remembers the last checkpoint of each log, and cosigns the next one only when it follows: so nobody who trusts this
witness can be shown another history.  It prints its public key when it listens, and runs in the foreground.  It is of
use where the owner of the log cannot change it: under another user, better on another machine.

example:
  everyhop log witness --dir ~/witness --name witness.example/w1 --vkey log.vkey --listen unix:/run/witness.sock
"""
_RESTART = """\
For a server that does not start because its audit log is not what was signed for, and cannot be restored: begins a log
of a new origin over the records that are there.  Its first record names the old origin, size and root, and the reason.
The server is stopped while this runs.

example:
  everyhop log restart --reason "disk of host7 lost; restored the backup of 2026-03-01"
"""


def add_proofs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verbs."""
    verify = add_verb(verbs, "verify", _verify, _VERIFY, "check the whole log, or one receipt")
    where = verify.add_mutually_exclusive_group()
    where.add_argument(
        "--tiles", metavar="DIR", type=Path, help="a directory that `log export --tiles` wrote"
    )
    where.add_argument("--url", help="the URL prefix of a log, e.g. https://127.0.0.1:23456/log")
    where.add_argument("--receipt", metavar="FILE", type=Path, help="one record with its proof")
    verify.add_argument(
        "--vkey",
        action="append",
        default=[],
        metavar="VKEY|FILE",
        help="public key of the log (default: that of the state directory)",
    )
    verify.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="FILE|URL",
        help="a checkpoint that was kept elsewhere",
    )
    verify.add_argument(
        "--witness", action="append", default=[], metavar="VKEY", help="public key of a witness"
    )
    verify.add_argument(
        "--quorum", type=int, metavar="N", help="how many of the witnesses must have cosigned (default: all)"
    )
    verify.add_argument(
        "--svid", metavar="DIR", type=Path, help="svid.pem, key.pem and bundle.pem, for a URL over TLS"
    )
    prove = add_verb(verbs, "prove", _prove, _PROVE, "write a receipt of one record")
    prove.add_argument("event", metavar="EVENT", help="the id of the record, e.g. a decision id")
    prove.add_argument(
        "--out", metavar="FILE", type=Path, help="where to (default: EVENT.tlog-proof; - for stdout)"
    )
    rotate = add_verb(verbs, "rotate-key", _rotate, _ROTATE, "sign with a new key of the log")
    rotate.add_argument("--retire", action="store_true", help="end all keys but the newest")
    witness = verbs.add_parser(
        "witness",
        help="cosign the checkpoints of logs, as a process of its own",
        epilog=_WITNESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    witness.add_argument("--dir", type=Path, required=True, metavar="DIR", help="its key and its memory")
    witness.add_argument("--name", required=True, help="its name, e.g. witness.example/w1")
    witness.add_argument(
        "--vkey", action="append", required=True, metavar="VKEY|FILE", help="public key of a log it cosigns"
    )
    witness.add_argument("--listen", required=True, metavar="unix:/PATH", help="its socket")
    witness.set_defaults(run=_witness)
    restart = add_verb(verbs, "restart", _restart, _RESTART, "accept the loss of records, on record")
    restart.add_argument("--reason", required=True, metavar="TEXT", help="why, for the record")


def _witness(args: argparse.Namespace) -> int:
    import asyncio

    from everyhop.core.errors import InputError
    from everyhop.runtime.log_reading import read_keys
    from everyhop.runtime.witness_process import open_witness, run_witness

    socket = args.listen.removeprefix("unix:").removeprefix("//")
    if not args.listen.startswith("unix:") or not socket.startswith("/"):
        raise InputError("a witness listens at unix:/absolute/path", hint="put a proxy with TLS before it")
    keys = [key for text in args.vkey for key in read_keys(text)]
    witness = open_witness(args.dir, args.name, keys)

    def ready(key: object) -> None:
        print(key, flush=True)

    asyncio.run(run_witness(witness, Path(socket), ready=ready))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from everyhop.core.errors import EveryhopError

    try:
        return _verified(args)
    except EveryhopError as error:  # whatever it was, it is no verdict
        if wants_json(args):
            print_json({"outcome": "unverified", "message": error.message})
        print_error(error)
        return UNVERIFIED


def _verified(args: argparse.Namespace) -> int:
    from everyhop.runtime.log_reading import LogReading

    reading = LogReading(
        layout_of(args), vkeys=args.vkey, witnesses=args.witness, quorum=args.quorum, svid=args.svid
    )
    if args.receipt is not None:
        return _verify_receipt(args, reading)
    verdict = reading.verify(
        tiles=args.tiles,
        url=args.url,
        against=args.against,
        progress=_progress if sys.stderr.isatty() else None,
    )
    # Only the database knows what producers signed; integrity is judged first, and nothing is asked of a broken log.
    found = (
        reading.completeness() if args.tiles is None and args.url is None and not verdict.findings else None
    )
    if wants_json(args):
        print_json(verdict.to_dict() | {"completeness": None if found is None else found.to_dict()})
    else:
        _print_verdict(verdict)
        for sentence in () if found is None else found.sentences():
            print(printable(sentence))
    return _code(verdict, found)


def _code(verdict: Verdict, found: Completeness | None) -> int:
    if verdict.outcome == "tampered" or (found is not None and found.is_contradicted):
        return TAMPERED
    return INTACT if verdict.outcome == "intact" and (found is None or found.is_complete) else UNVERIFIED


def _progress(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\r{done:,} of {total:,} records", end=end, file=sys.stderr, flush=True)


def _print_verdict(verdict: Verdict) -> None:
    for finding in verdict.findings:
        place = "" if finding.index is None else f" (index {finding.index})"
        print(f"{paint(finding.fault.value.upper(), 'red')}: {printable(finding.message)}{place}")
        for note in finding.evidence:
            print("  evidence, signed by the log's key:")
            print("".join(f"    {printable(line)}\n" for line in note.splitlines()), end="")
    for reason in verdict.unverified:
        print(f"{paint('UNVERIFIED', 'red')}: {printable(reason)}")
    if verdict.outcome == "intact":
        print(
            f"{paint('intact', 'green')}: {verdict.size} records of {printable(verdict.origin)},"
            f" signed for up to {verdict.signed}"
        )
    if verdict.first_kept and not verdict.findings:
        print(
            f"records 1 to {verdict.first_kept} were removed by age; their hashes are part of what was checked"
        )
    if verdict.witnesses:
        print(f"cosigned by {', '.join(map(printable, verdict.witnesses))}")


def _verify_receipt(args: argparse.Namespace, reading: object) -> int:
    from everyhop.core.errors import InputError, ProofError
    from everyhop.runtime.log_reading import LogReading

    assert isinstance(reading, LogReading)  # noqa: S101  # narrows what was imported late
    try:
        proven = reading.receipt(args.receipt)
    except ProofError as error:
        outcome, message, code = "tampered", error.message, TAMPERED
    except InputError as error:
        outcome, message, code = "unverified", error.message, UNVERIFIED
    else:
        if wants_json(args):
            import msgspec

            print_json(
                {
                    "outcome": "intact",
                    "index": proven.index,
                    "origin": proven.checkpoint.origin,
                    "size": proven.checkpoint.size,
                    "witnesses": list(proven.witnesses),
                    "record": msgspec.to_builtins(proven.record),
                }
            )
            return INTACT
        print(
            f"{paint('intact', 'green')}: record {proven.index + 1} of {printable(proven.checkpoint.origin)},"
            f" in the {proven.checkpoint.size} records that were signed for"
        )
        if proven.witnesses:
            print(f"cosigned by {', '.join(map(printable, proven.witnesses))}")
        print(printable(msgspec_json(proven.record)))
        return INTACT
    if wants_json(args):
        print_json({"outcome": outcome, "message": message})
    else:
        print(f"{paint(outcome.upper(), 'red')}: {printable(message)}")
    return code


def msgspec_json(record: object) -> str:
    """Return a record as its line reads."""
    import msgspec

    return msgspec.json.encode(record).decode()


def _prove(args: argparse.Namespace) -> int:
    from everyhop.runtime.log_reading import LogReading

    data = LogReading(layout_of(args)).prove(args.event)
    if str(args.out) == "-":
        sys.stdout.buffer.write(data)
        return 0
    from everyhop.core.errors import InputError

    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in args.event)
    out: Path = args.out or Path(f"{name}.tlog-proof")
    try:
        with out.open("xb") as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error
    if wants_json(args):
        print_json({"receipt": str(out)})
    else:
        print(out)
    return 0


def _export(args: argparse.Namespace) -> int:
    from everyhop.runtime.log_reading import export

    done = export(layout_of(args), args.tiles)
    if wants_json(args):
        print_json(
            {
                "origin": done.origin,
                "from": done.old,
                "to": done.new,
                "files": done.files,
                "left_out": done.left_out,
            }
        )
        return 0
    print(f"{done.origin}: {done.new} records, {done.new - done.old} of them new, {done.files} files written")
    if done.left_out:
        say(f"{done.left_out} records are not kept any more; their hashes were written")
    return 0


def _rotate(args: argparse.Namespace) -> int:
    answer = admin(args).post("/v1/log/rotate-key", {"retire": args.retire})
    if wants_json(args):
        print_json(answer)
        return 0
    for vkey in answer["vkeys"]:
        print(vkey)
    return 0


def _restart(args: argparse.Namespace) -> int:
    from everyhop.runtime.log_reading import restart

    origin = restart(layout_of(args), args.reason)
    if wants_json(args):
        print_json({"origin": origin})
    else:
        print(f"a new log: {origin}")
    return 0


def _declare(group: argparse._MutuallyExclusiveGroup) -> None:
    group.add_argument(
        "--tiles",
        metavar="DIR",
        type=Path,
        help="the log as files for any web server, with proofs (tlog-tiles)",
    )


TILES: Final = Way(dest="tiles", declare=_declare, run=_export)
"""The way of ``log export`` that writes tiles, what is new since the last time."""
