"""The shelves against a plain list."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.bulk import Shelves

STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "take", "others"]), st.integers(0, 7), st.sampled_from("xyz"), st.integers(0, 9)),
    max_size=60,
)


@given(STEPS)
def test_a_shelf_holds_what_was_put_there_and_not_taken(steps: list[tuple[str, int, str, int]]) -> None:
    """In the order in which it came, whatever was taken and put again."""
    shelves: Shelves[int] = Shelves()
    model: list[tuple[str, int]] = []
    for what, number, shelf, most in steps:
        inside = [each for _, each in model]
        if what == "put" and number not in inside:
            shelves.put(number, shelf, number)
            model.append((shelf, number))
        elif what == "take":
            shelves.take(number)
            model = [(where, each) for where, each in model if each != number]
        elif what == "others":
            assert shelves.others(shelf, most) == [each for where, each in model if where == shelf][:most]
        assert len(shelves) == len(model)
