"""Runs a Python test and prints the Test Anything Protocol."""

import sys
import traceback


def run(subject, names):
    """Every test_* among the names, in order; ends the program. A test that lacks a module is skipped."""
    tests = [(name, test) for name, test in names.items() if name.startswith("test_")]
    failed = 0
    for number, (name, test) in enumerate(tests, 1):
        right, skip = "ok", ""
        try:
            test()
        except ModuleNotFoundError as error:
            skip = f" # SKIP {error}"
        except BaseException:
            traceback.print_exc()
            right, failed = "not ok", failed + 1
        print(f"{right} {number} - {subject}: {name[5:].replace('_', ' ')}{skip}", flush=True)
    print(f"1..{len(tests)}")
    sys.exit(failed > 0)
