"""Method words, their options, and the context a method is built from."""

import pytest
from helpers import context
from torch import nn

from infomin.methods import METHODS, Method, build_method, method_word, parse_method


class Toy(Method):
    """A method with an option of every type."""

    def __init__(self, context, *, queue: int = 4096, momentum=0.99, symmetric=True, loss="mean"):
        super().__init__(context)
        self.options = [queue, momentum, symmetric, loss]


class Required(Method):
    def __init__(self, context, *, queue):
        super().__init__(context)


@pytest.fixture(autouse=True)
def toy(registered):
    registered(METHODS, "toy", Toy)


@pytest.mark.parametrize(
    ("word", "canonical", "options"),
    [
        ("toy", "toy", [4096, 0.99, True, "mean"]),
        ("toy:queue=3/momentum=0.5", "toy:momentum=0.5/queue=3", [3, 0.5, True, "mean"]),
        (
            "toy:symmetric=FALSE/loss=sum",
            "toy:loss=sum/symmetric=False",
            [4096, 0.99, False, "sum"],
        ),
        ("toy:queue=4096/momentum=.99/symmetric=true", "toy", [4096, 0.99, True, "mean"]),
        ("toy:momentum=1/queue=4096", "toy:momentum=1.0", [4096, 1.0, True, "mean"]),
    ],
)
def test_options_are_sorted_and_defaults_left_out(word, canonical, options):
    assert method_word(word) == method_word(canonical) == canonical
    for spelling in (word, canonical):
        built = build_method(spelling, context((1, 1), width=0.25)).options
        assert built == options
        assert [type(value) for value in built] == [int, float, bool, str]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("toi", r"method: got 'toi', wanted one of infonce, .*supervised, .*toy"),
        ("toy:", "'toy:': option: got '', wanted one of queue, momentum, symmetric, loss"),
        ("toy:length=3", "option: got 'length', wanted one of queue, momentum, symmetric, loss"),
        ("toy:queue=3/", "option: got '', wanted one of queue"),
        ("toy:queue", "method 'toy:queue': queue: got '', wanted int such as 4096"),
        ("toy:loss", "method 'toy:loss': loss: got '', wanted str such as mean"),
        ("toy:symmetric", "symmetric: got '', wanted true or false"),
        ("toy:momentum=nan", "momentum: got 'nan', wanted float such as 0.99"),
        ("toy:momentum=-inf", "momentum: got '-inf', wanted float such as 0.99"),
        ("toy:loss=a/b", "option: got 'b', wanted one of queue, momentum, symmetric, loss"),
        ("toy:queue=3.5", "queue: got '3.5', wanted int such as 4096"),
        ("toy:momentum=high", "momentum: got 'high', wanted float such as 0.99"),
        ("toy:symmetric=1", "symmetric: got '1', wanted true or false"),
        ("infonce:", "option: got '', wanted none, it has no options"),
    ],
)
def test_a_wrong_word_is_an_error_that_lists_what_is_known(word, message):
    for read in (parse_method, method_word, lambda word: build_method(word, context((1, 1)))):
        with pytest.raises(ValueError, match=message):
            read(word)


@pytest.mark.parametrize(
    ("limits", "accepted", "wanted"),
    [((2, 2), {2}, "2"), ((1, 3), {1, 2, 3}, "1 to 3"), ((2, None), {2, 3, 4}, "2 or more")],
)
def test_a_wrong_number_of_views_is_refused(monkeypatch, limits, accepted, wanted):
    monkeypatch.setattr(Toy, "views", limits)
    for n in range(1, 5):
        context_of_n = context((1,) * n, width=0.25)
        if n in accepted:
            assert len(build_method("toy", context_of_n).encoders) == n
        else:
            got = "1 view" if n == 1 else f"{n} views"
            with pytest.raises(ValueError, match=rf"^method 'toy': got {got}, wanted {wanted}; "):
                build_method("toy", context_of_n)


@pytest.mark.parametrize(
    "limits", [2, None, (2,), (2, 3, 4), ("2", None), (0, 2), (None, 2), [2, 2], (2.0, None)]
)
def test_views_of_a_method_are_a_minimum_and_a_maximum(monkeypatch, limits):
    monkeypatch.setattr(Toy, "views", limits)
    message = r"method 'toy': views must be a tuple \(minimum, maximum or None\), got "
    for read in (method_word, lambda word: build_method(word, context((1, 1)))):
        with pytest.raises(TypeError, match=message):
            read("toy")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (nn.Linear, "must be a class derived from infomin.methods.Method, got .*Linear"),
        (build_method, "must be a class derived from infomin.methods.Method"),
        (Required, "option queue needs a bool, int, float or str as its default"),
    ],
)
def test_what_is_registered_must_be_a_method_with_defaults(registered, made, message):
    registered(METHODS, "other", made)
    with pytest.raises(TypeError, match=f"method 'other': {message}"):
        build_method("other", context((1, 1)))
