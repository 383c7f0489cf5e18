"""The checks of numbers agree on what a number is."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest

from infomin.common.checks import (
    check_integer,
    check_interval,
    check_positive,
    check_range,
    check_type,
)

Check = Callable[[Any], Any]
CHECKS: dict[str, Check] = {
    "positive": lambda value: check_positive(value, "f(x)"),
    "zero or more": lambda value: check_positive(value, "f(x)", zero=True),
    "range": lambda value: check_range(value, 0, 10, "f(x)"),
    "integer": lambda value: check_integer(value, 0, 10, "f(x)"),
    "interval": lambda value: check_interval((value, value), 0, 10, "f(x)")[0],
}
every_check = pytest.mark.parametrize("name", CHECKS)
ONES = [1, 1.0, np.int64(1), np.uint8(1), np.float32(1), np.float64(1), Fraction(1)]


@every_check
@pytest.mark.parametrize("one", ONES, ids=repr)
def test_a_number_comes_back_as_one_of_python(name: str, one: Any) -> None:
    number = CHECKS[name](one)
    assert number == 1 and type(number) in (int, float)


@every_check
@pytest.mark.parametrize(
    "wrong",
    [True, np.bool_(True), "1", None, [1], 1j, float("nan"), float("inf"), np.float32("nan"), -1],
    ids=repr,
)
def test_what_is_no_finite_number_in_range_is_an_error(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^f\(x\): got .*, wanted (a|two) .*number"):
        CHECKS[name](wrong)


@pytest.mark.parametrize("wanted", [int, float])
@pytest.mark.parametrize("wrong", [True, np.bool_(True), "1", None, 1j])
def test_a_bool_is_no_number(wanted: type, wrong: Any) -> None:
    with pytest.raises(ValueError, match=rf"^f\(x\): got .*, wanted {wanted.__name__}$"):
        check_type(wrong, wanted, "f(x)")


def test_types_of_numbers() -> None:
    whole = partial(check_type, wanted=int, what="f(x)")
    for number in ONES:
        check_type(number, float, "f(x)")
    whole(1), whole(np.int64(1))
    for fraction in (1.0, np.float64(1)):
        with pytest.raises(ValueError, match="wanted int"):
            whole(fraction)
