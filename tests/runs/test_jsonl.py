"""Reading JSON: what Python's own decoder reads, and its words for what is none."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtrack_mrt.runs import jsonl

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters())
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(value=values, escaped=st.booleans())
def test_every_value_comes_back_the_same(value: object, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped).encode(errors="surrogatepass")
    try:
        expected = json.loads(text.decode())
    except UnicodeDecodeError:
        with pytest.raises(ValueError, match="not valid UTF-8"):
            jsonl.parse(text)
        return
    assert repr(jsonl.parse(text, bad_numbers=True)) == repr(expected)  # 1 is not 1.0, -0.0 not 0.0


@pytest.mark.parametrize(
    "text",
    ["1e400", "-0", "1.", "01", '"\\ud800"', '{"a": 1, "b": 2, "a": 3}', "9" * 400, '"\t"', "[1] [2]", "", "[1,]"],
)
def test_odd_texts_are_read_as_by_python(text: str) -> None:
    try:
        expected = json.loads(text)
    except json.JSONDecodeError as error:
        with pytest.raises(ValueError, match=f"at column {error.colno}"):
            jsonl.parse(text.encode())
    else:
        assert repr(jsonl.parse(text.encode())) == repr(expected)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_read_where_that_is_asked(constant: str) -> None:
    text = f'[{{"answer": {constant}}}]'.encode()
    with pytest.raises(ValueError, match=f"not JSON: {constant}, which is null there"):
        jsonl.parse(text)
    assert not math.isfinite(jsonl.parse(text, bad_numbers=True)[0]["answer"])


def test_a_byte_order_mark_is_none_of_the_text() -> None:
    assert jsonl.parse('\ufeff{"a": 1}'.encode()) == {"a": 1}


def test_a_number_of_too_many_digits_is_refused() -> None:
    with pytest.raises(ValueError, match="digits"):
        jsonl.parse(b"9" * 10_000)
