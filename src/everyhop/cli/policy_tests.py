# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy test``: the policy's own tests, what they cover, and boundary cases to add to them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everyhop.cli.exit_codes import FAILED, LOW_COVERAGE, OK
from everyhop.cli.output import paint, print_json, printable, wants_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.authz import TestResult
    from everyhop.authz.boundary_cases import Case
    from everyhop.authz.coverage import Coverage

_EPILOG = """\
examples:
  everyhop policy test everyhop.yaml
  everyhop policy test --coverage --min-coverage 80
  everyhop policy test --generate          cases for you to review, ready to be put under tests:

exit codes: 0 · 1 a test fails · 7 all pass, but less is covered than --min-coverage asks for
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add what ``test`` takes."""
    verb.epilog = _EPILOG
    verb.formatter_class = argparse.RawDescriptionHelpFormatter
    verb.add_argument(
        "--coverage",
        action="store_true",
        help="rules and clauses that no test tries, and what no test can mend (too open, never reached)",
    )
    verb.add_argument(
        "--min-coverage", metavar="N", type=_percent, help="exit with 7 below N percent; implies --coverage"
    )
    verb.add_argument(
        "--generate",
        action="store_true",
        help="print cases on both sides of every condition, with the answers of now, for review",
    )


def _percent(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 100:  # noqa: PLR2004  # percent
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100")
    return value


def run(args: argparse.Namespace) -> int:
    """Run the tests, and whatever else was asked for."""
    from everyhop.authz import Engine, run_tests
    from everyhop.authz.boundary_cases import boundary_cases
    from everyhop.authz.coverage import coverage_of
    from everyhop.cli.policy_at_hand import DEFAULT, read_policy

    snapshot = read_policy(args.policy or Path(DEFAULT)).snapshot
    engine = Engine(snapshot)
    results = run_tests(snapshot, engine)
    wants_coverage = args.coverage or args.min_coverage is not None
    coverage = coverage_of(snapshot, engine) if wants_coverage else None
    cases = boundary_cases(engine) if args.generate else None
    if wants_json(args):
        print_json(_answer(results, coverage, cases))
    elif cases is not None:
        _print_cases(cases)
    else:
        _print_results(results)
    if coverage is not None and cases is None and not wants_json(args):
        _print_coverage(coverage)
    if not all(result.is_passed for result in results):
        return FAILED
    if coverage is not None and args.min_coverage is not None and coverage.percent < args.min_coverage:
        return LOW_COVERAGE
    return OK


def _answer(results: Sequence[TestResult], coverage: Coverage | None, cases: Sequence[Case] | None) -> Any:
    """Return JSON: the list of results, or where more was asked for, an object that holds it."""
    shown = [_result(result) for result in results]
    if coverage is None and cases is None:
        return shown
    answer: dict[str, Any] = {"tests": shown}
    if coverage is not None:
        answer["coverage"] = coverage.to_dict()
    if cases is not None:
        answer["cases"] = [
            {
                "rule": case.rule.id,
                "entry": case.entry(),
                "decision": case.decision.effect.value,
                "reason": case.decision.reason.value,
                "by": case.decision.rule,
            }
            for case in cases
        ]
    return answer


def _result(result: TestResult) -> dict[str, object]:
    problem = result.problem()
    return {
        "at": str(result.test.span),
        "from": result.test.caller,
        "call": result.call,
        "to": result.test.target,
        "expect": result.test.expect.value,
        "decision": result.decision.effect.value,
        "passed": result.is_passed,
        "message": None if problem is None else problem.message,
    }


def _print_results(results: Sequence[TestResult]) -> None:
    for result in results:
        problem = result.problem()
        mark = paint("pass", "green") if problem is None else paint("FAIL", "red")
        shown = f"{result.test.caller} {result.call} on {result.test.target}: {result.test.expect.value}"
        print(f"{mark}  {result.test.span}  {shown if problem is None else problem.message}")
    failed = sum(not result.is_passed for result in results)
    print(f"{len(results) - failed} passed, {failed} failed")


def _print_coverage(coverage: Coverage) -> None:
    print(f"\ncoverage: {coverage.percent:.1f} % of rules and clauses")
    for found in coverage.rules:
        missing = [] if found.tests else ["it holds in no test"]
        for clause in found.clauses:
            sides = [
                side for side, seen in (("true", clause.is_true), ("false", clause.is_false)) if not seen
            ]
            if sides:
                missing.append(f"never {' nor '.join(sides)}: {clause.text}")
        if missing:
            print(f"  {found.rule.id} at {found.rule.span}")
            for line in missing:
                print(f"    {printable(line)}")
    if coverage.untested:
        print(f"  no test calls {', '.join(coverage.untested)}")
    if coverage.gaps:
        print("\nwhat no test can mend:")
        for gap in coverage.gaps:
            print(f"  {gap.render()}")


def _print_cases(cases: Sequence[Case]) -> None:
    """Print cases as YAML that can be put into the policy, each group under the rule that it was made for."""
    print(
        "# The answers are those of the policy as it is.  Keep a case only when its answer is the right one."
    )
    print("tests:")
    last = None
    for case in cases:
        if case.rule.id != last:
            last = case.rule.id
            text = f": {case.rule.when}" if case.rule.when else ""
            print(f"  # {case.rule.id} at {case.rule.span}{printable(' '.join(text.split()))}")
        by = f" by {case.decision.rule}" if case.decision.rule else ""
        print(f"  - {case.entry()}  # {case.decision.reason.value}{by}")
