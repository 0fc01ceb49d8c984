"""A task's options: fields, flags, and what is refused."""

import dataclasses

import pytest
from absl import flags

from ser_jax.evaluate.__main__ import define_option_flags, given_options
from ser_jax.evaluate.options import check_options, declared, option
from ser_jax.evaluate.results import option_fields
from ser_jax.evaluate.robustness.shifted import ShiftedOptions


def parsed(*args):
    values = flags.FlagValues()
    define_option_flags(values)
    values(["evaluate", *args])
    return given_options(values)


def test_every_option_is_a_flag_of_its_type():
    usual = parsed()
    assert usual == {name: field.default for name, field in option_fields().items()}
    given = parsed("--grid_layer=2", "--shifted=a,b", "--finetune_epochs=1.5")
    assert given["grid_layer"] == 2 and given["finetune_epochs"] == 1.5
    assert given["shifted"] == ("a", "b") and given["protocol"] == "grid"
    assert parsed("--protocol=ser")["protocol"] == "ser"


@pytest.mark.parametrize(
    "flag", ["--protocol=none", "--grid_layer=x", "--finetune_epochs=-1"]
)
def test_flags_refuse_other_values(flag):
    with pytest.raises(flags.IllegalFlagValueError):
        parsed(flag)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"protocl": "ser"}, "no task has an option 'protocl'; there are: grid_layer"),
        ({"protocol": "none"}, "protocol must be one of grid, .*; got 'none'"),
        ({"finetune_epochs": -1}, "finetune_epochs must be at least 0, got -1"),
    ],
)
def test_python_refuses_the_same(given, message):
    with pytest.raises(ValueError, match=message):
        check_options(given, option_fields())


def test_an_option_is_declared_once():
    """Red if two tasks may mean different things by one flag."""

    @dataclasses.dataclass(frozen=True)
    class Other:
        shifted: int = option(3, "By how many pixels.")

    assert list(declared([ShiftedOptions, ShiftedOptions])) == ["protocol", "shifted"]
    with pytest.raises(ValueError, match="Other declares an option 'shifted' of its"):
        declared([ShiftedOptions, Other])
