import pytest
import torch

from kspace.errors import InputError, ShapeError, SpokewiseError, UsageError


def test_message_says_what_expected_and_next_step() -> None:
    error = SpokewiseError("the flag is wrong", expected="a right one", hint="Try another")
    assert str(error) == "the flag is wrong; expected a right one. Try another."
    assert (error.what, error.expected, error.hint) == ("the flag is wrong", "a right one", "Try another")


def test_full_stops_are_not_doubled() -> None:
    assert str(SpokewiseError("wrong.", expected="right.", hint="Go.")) == "wrong; expected right. Go."


def test_what_alone_is_a_sentence() -> None:
    assert str(SpokewiseError("wrong")) == "wrong."


@pytest.mark.parametrize(("kind", "code"), [(SpokewiseError, 1), (UsageError, 2), (InputError, 3)])
def test_exit_codes(kind: type[SpokewiseError], code: int) -> None:
    assert kind("wrong").exit_code == code
    assert issubclass(kind, SpokewiseError)


@pytest.mark.parametrize("got", [torch.zeros(2, 3), (2, 3)])
def test_shape_error_prints_expected_and_got(got: object) -> None:
    error = ShapeError("the image", got, "(y, x)")
    assert str(error) == "the image has shape (2, 3); expected (y, x)."
    assert error.exit_code == InputError.exit_code
    assert isinstance(error, InputError)


def test_shape_error_of_a_scalar() -> None:
    assert "has shape ()" in str(ShapeError("the image", torch.zeros(()), "(y, x)"))
