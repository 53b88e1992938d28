# SPDX-License-Identifier: Apache-2.0
"""A process that evaluates Rego: a line of JSON in, a line of JSON out."""

import json
import sys

from regopy import Interpreter


def main() -> None:
    interpreter = Interpreter()
    for line in sys.stdin:
        order = json.loads(line)
        if "modules" in order:
            interpreter = Interpreter()
            for data in order["data"]:
                interpreter.add_data(data)
            for name, text in order["modules"].items():
                interpreter.add_module(name, text)
            print("null", flush=True)
        else:
            interpreter.set_input(order["input"])
            text = str(interpreter.query(order["query"]))
            found = None if text == "undefined" else json.loads(text)
            expressions = found.get("expressions") if isinstance(found, dict) else None
            print(json.dumps(expressions[0] if expressions else None), flush=True)


if __name__ == "__main__":
    main()
