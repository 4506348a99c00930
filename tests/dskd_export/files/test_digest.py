from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dskd_export.files.json_text import digest

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_digest_does_not_see_the_order_of_keys(value: object) -> None:
    def reverse(item: object) -> object:
        if isinstance(item, dict):
            return {key: reverse(item[key]) for key in reversed(item)}
        return [reverse(part) for part in item] if isinstance(item, list) else item

    assert digest(reverse(value)) == digest(value)
    assert digest([value]) != digest(value)
    assert len(digest(value)) == 64


@pytest.mark.parametrize("value", [math.nan, [math.inf]])
def test_what_is_no_json_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        digest(value)
