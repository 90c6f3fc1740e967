"""Unit tests as people write them: right programs are paid, wrong ones are not, and what cannot run is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backtrack_mrt.graders.python import Python
from backtrack_mrt.grading import Verdict
from backtrack_mrt.types import Problem

RIGHT = "def add(a, b):\n    if b is None:\n        raise ValueError('no number: b')\n    return a + b"
WRONG = "def add(a, b):\n    return a - (b or 0)"
GROUPED = """class TestAdd:
    def setup_method(self):
        self.one = 1
    def test_two(self):
        assert add(self.one, 1) == 2
    @pytest.mark.parametrize("b", [2, 3])
    def test_more(self, b):
        assert add(self.one, b) == b + 1
"""
TESTS = {
    "raises": "import pytest\nfrom solution import add\ndef test_a():\n    with pytest.raises(ValueError):\n"
    "        add(1, None)\n    assert add(1, 2) == 3",
    "raises, said": "import pytest\ndef test_a():\n    with pytest.raises(ValueError, match='no number') as info:\n"
    "        add(1, None)\n    assert 'b' in str(info.value)",
    "raises, nothing else": "from pytest import raises\ndef test_a():\n    with raises((TypeError, ValueError)):\n"
    "        add(1, None)",
    "raises, called": "import pytest\npytest.raises(ValueError, add, 1, None)\nassert add(1, 2) == 3",
    "approx": "import pytest\nassert add(.1, .2) == pytest.approx(.3)\nassert [add(.1, .2)] == pytest.approx([.3])",
    "parametrize": "import pytest\n@pytest.mark.slow\n@pytest.mark.parametrize('a, b, c', [(1, 2, 3), (2, 2, 4)])\n"
    "def test_a(a, b, c):\n    assert add(a, b) == c",
    "parametrize twice": "import pytest\n@pytest.mark.parametrize('a', [1, 2])\n"
    "@pytest.mark.parametrize(['b'], [(3,)])\ndef test_a(a, b):\n    assert add(a, b) == a + b",
    "a class": f"import pytest\n{GROUPED}",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n    def setUp(self):\n        self.one = 1\n"
    "    def test_a(self):\n        self.assertEqual(add(self.one, 2), 3)\n"
    "        with self.assertRaisesRegex(ValueError, 'no'):\n            add(1, None)\n"
    "if __name__ == '__main__':\n    unittest.main()",
    "the module": "import math, solution\nassert math.isclose(solution.add(.1, .2), .3)",
    "another name": "from your_code import add as plus\nassert plus(1, 2) == 3",
    "try": "try:\n    add(1, None)\n    assert False\nexcept ValueError:\n    pass\nassert add(1, 2) == 3",
}
REFUSED = {
    "import pytest\n@pytest.fixture\ndef one():\n    return 1\ndef test_a(one):\n    assert f(one)": "pytest.fixture",
    "def test_a(capsys):\n    assert f(1)": r"wants arguments: test_a\(capsys\)",
    "import pytest\n@pytest.mark.skip\ndef test_a():\n    assert f(1)": "need not pass: skip",
    "import numpy as np\nassert np.allclose(f(1), 1)": "imports numpy.*grading.modules",
    "import unittest\nclass T(unittest.IsolatedAsyncioTestCase):\n    async def test_a(self): assert f()": "event loop",
    "class TestA:\n    def test_a(self, one):\n        assert f(one)": r"wants arguments: test_a\(one\)",
}


@pytest.fixture(scope="module")
def grader() -> Iterator[Python]:
    with Python(cpu_s=1) as opened:
        yield opened


@pytest.mark.parametrize("name", TESTS)
def test_they_tell_right_from_wrong(name: str, grader: Python) -> None:
    assert grader.check_gold(TESTS[name]) is None
    problem = Problem(name, "Write add(a, b).", TESTS[name])
    assert grader.grade(problem, RIGHT).verdict is Verdict.RIGHT
    assert grader.grade(problem, WRONG).verdict is Verdict.WRONG


def test_cases_are_tests_of_their_own() -> None:
    with Python(partial=True) as grader:
        half = "def add(a, b): return 3"
        assert grader.grade(Problem("p", "", TESTS["parametrize"]), half).reward == 0.5
        assert grader.grade(Problem("p", "", TESTS["a class"]), half).reward == pytest.approx(1 / 3)


@pytest.mark.parametrize("tests", REFUSED)
def test_what_cannot_run_is_refused(tests: str, grader: Python) -> None:
    with pytest.raises(AssertionError, match=REFUSED[tests]):
        raise AssertionError(grader.check_gold(tests))


@pytest.mark.parametrize("ends", ["import os\ndef add(a, b): os._exit(0)", "def add(a, b):\n    while True: pass"])
def test_a_process_that_ends_has_raised_nothing(ends: str, grader: Python) -> None:
    gold = "import pytest\ntry:\n    with pytest.raises(Exception):\n        add(1, None)\nexcept:\n    assert True"
    assert grader.grade(Problem("p", "", gold), ends).reward == 0.0


def test_named_modules_are_there() -> None:
    gold = "import numpy as np\nassert np.allclose(add(.1, .2), .3)"
    with Python(modules=["numpy"]) as grader:
        assert grader.check_gold(gold) is None
        assert grader.grade(Problem("p", "", gold), RIGHT).verdict is Verdict.RIGHT
