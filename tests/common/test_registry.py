"""The registry: built-in members, a user's own, and names that a word could not hold."""

import pytest

from infomin.common.registry import Entry, Registry
from infomin.methods import METHODS
from infomin.networks import ENCODERS


@pytest.fixture
def registry():
    """A registry with two built-in members."""
    registry = Registry("member")
    registry.register("b", dial="help of b")(bool)
    registry.register("a")(ascii)
    registry.load_members("infomin", [])
    return registry


def test_own_members_are_those_added_or_replaced_and_travel_to_another_registry(registry):
    assert registry.own() == {} and dict(registry) == {"a": ascii, "b": bool}
    assert registry.register("c", dial="mine")(int) is int
    registry.register("a")(str)
    assert list(registry) == ["a", "b", "c"] and registry.dial("b") == "help of b"
    assert registry.own() == {"a": Entry(str, ""), "c": Entry(int, "mine")}
    other = Registry("member")
    other.register("b")(float)
    other.add_entries(registry.own())
    assert dict(other) == {"a": str, "b": float, "c": int} and other.dial("c") == "mine"


def test_every_module_of_a_package_registers_its_members():
    assert {"infonce", "supervised"} <= set(METHODS) - set(METHODS.own())
    assert {"alexnet", "resnet18", "resnet50", "tiny"} <= set(ENCODERS) - set(ENCODERS.own())


@pytest.mark.parametrize("name", ["", "-a", "a b", "a:b", "a+b", "a/b", "a|b", "a=b", "a\n", "a."])
def test_a_name_that_a_word_could_not_hold_is_refused(registry, name):
    with pytest.raises(ValueError, match="register: member names consist of letters, digits, _"):
        registry.register(name)


@pytest.mark.parametrize("name", ["a", "mine-2", "_x", "4"])
def test_letters_digits_underscores_and_hyphens_make_a_name(registry, name):
    registry.register(name)(int)
    assert registry[name] is int and registry.dial(name) == ""


@pytest.mark.parametrize("name", [bool, None, 3])
def test_a_decorator_without_a_name_says_how_to_write_it(registry, name):
    with pytest.raises(TypeError, match=r'names must be text, got .*; write @register\("name"\)'):
        registry.register(name)
