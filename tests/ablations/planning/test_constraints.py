import pytest
from pydantic import ValidationError

from ablations.planning.constraints import parse_constraint, violated
from ablations.planning.search_config import SearchConfig

NAMES = ["abs_rel", "delta1", "milliseconds", "parameters"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("parameters <= 5e6", "parameters <= 5000000"),
        ("  milliseconds<=20.50 ", "milliseconds <= 20.5"),
        ("delta1 >= .75", "delta1 >= 0.75"),
        ("abs_rel >= -1", "abs_rel >= -1"),
    ],
)
def test_constraint_is_written_in_one_way(text, written):
    assert str(parse_constraint(text, NAMES)) == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters", "expected 'name <= number' or 'name >= number', got 'parameters'"),
        ("parameters <= ", "expected 'name <= number' or 'name >= number', got 'parameters <= '"),
        ("20 >= milliseconds", "unknown '20'; valid: abs_rel, delta1, milliseconds, parameters"),
        ("params <= 5", r"unknown 'params'; did you mean parameters\?"),
        ("parameters < 5", "expected <= or >=, got '<' in 'parameters < 5'"),
        ("parameters == 5", "expected <= or >=, got '=='"),
        ("parameters <= 5M", "expected a number such as 20 or 5e6, got '5M'"),
        ("parameters <= nan", "expected a number such as 20 or 5e6, got 'nan'"),
        ("parameters <= 1e999", "expected a number such as 20 or 5e6, got '1e999'"),
        ("parameters <= 5_000", "expected a number such as 20 or 5e6, got '5_000'"),
    ],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(ValueError, match=f"^search.constraints: {message}"):
        parse_constraint(text, NAMES)


def test_violation_is_a_share_of_the_limit():
    assert parse_constraint("parameters <= 200", NAMES).violation(300) == 0.5
    assert parse_constraint("parameters <= 200", NAMES).violation(200) == 0
    assert parse_constraint("delta1 >= 0.5", NAMES).violation(0.25) == 0.5
    assert parse_constraint("delta1 >= 0", NAMES).violation(0.25) == -0.25


def test_violated_constraints_are_named_with_their_values():
    bounds = SearchConfig(space="a.yaml", constraints=["parameters <= 2e5", "delta1 >= 0.8", "milliseconds <= 20"]).bounds
    assert violated(bounds, {"parameters": 266321, "delta1": 0.75}) == "parameters 266321, limit 200000; delta1 0.75, limit 0.8"
    assert violated(bounds, {"parameters": 200000, "delta1": 0.8, "milliseconds": 20.0}) == ""


def test_constraint_is_given_once():
    with pytest.raises(ValidationError, match=r"search.constraints: must not repeat a constraint"):
        SearchConfig(space="a.yaml", constraints=["parameters <= 5e6", "parameters <= 5000000"])
