"""Runs the tests beside it.

Exit code: 0 all is well, 1 something is wrong, 2 something was not checked. That is a skipped test: one
that could not be run on this machine. It is named, and does not count as passed.
"""

import pathlib
import sys
import unittest


class Result(unittest.TextTestResult):
    """Counts what passed: what runs, less what fails and is skipped, differs among Pythons."""

    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


def main():
    here = pathlib.Path(__file__).parent
    suite = unittest.defaultTestLoader.discover(here, pattern="test_*.py")
    runner = unittest.TextTestRunner(verbosity=2, stream=sys.stdout, resultclass=Result)
    result = runner.run(suite)
    # A test that fails for several cases (subTest) is one test that fails.
    failed = {getattr(test, "test_case", test).id()
              for test, _ in result.failures + result.errors}
    for reason in sorted({reason for _, reason in result.skipped}):
        print(f"NOT CHECKED: {reason}")
    # The form that scripts/test counts, which is cargo's.
    state = "FAILED" if failed else "ok"
    print(f"test result: {state}. {result.passed} passed; {len(failed)} failed")
    if not result.testsRun:
        print("there are no tests")
        return 1
    return 1 if failed else 2 if result.skipped else 0


if __name__ == "__main__":
    sys.exit(main())
