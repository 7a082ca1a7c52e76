import pytest

from benchmarks.measuring import compare_calls, quantile, summary, table, take_turns, time_calls


def test_a_quantile_is_the_smallest_sample_that_enough_do_not_exceed() -> None:
    ordered = list(range(1, 1001))
    assert [quantile(ordered, part) for part in (0.0, 0.5, 0.9, 0.99, 0.999, 1.0)] == [
        *(1, 500, 900, 990, 999, 1000)
    ]
    assert quantile([7], 0.999) == 7


def test_a_quantile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples; expected at least one"):
        quantile([], 0.5)


def test_a_summary_takes_samples_in_any_order() -> None:
    assert summary([4.0, 1.0, 2.0, 100.0]) == {
        "median": 3.0,
        "p90": 100.0,
        "p99": 100.0,
        "max": 100.0,
        "samples": 4,
    }


def test_variants_take_turns_and_every_other_round_goes_backwards() -> None:
    order: list[str] = []

    def turn(name: str) -> list[float]:
        order.append(name)
        return [float(len(order))]

    samples = take_turns({name: lambda name=name: turn(name) for name in "abc"}, 3)  # type: ignore[misc]
    assert "".join(order) == "cbaabccba"
    assert samples == {"a": [3, 4, 9], "b": [2, 5, 8], "c": [1, 6, 7]}


def test_a_slow_call_ends_its_turn_early() -> None:
    done: list[int] = []
    assert len(time_calls(lambda: done.append(1), 1000, within_s=0.0)) == 1
    assert len(time_calls(lambda: done.append(1), 1000)) == 1000
    assert len(done) == 1001


def test_an_operation_that_one_variant_lacks_is_measured_on_the_others() -> None:
    done: list[str] = []
    samples = compare_calls(
        {"a": {"get": lambda: done.append("a")}, "b": {"set": lambda: done.append("b")}},
        rounds=2,
        times=lambda operation: 3 if operation == "get" else 1,
    )
    assert {operation: list(found) for operation, found in samples.items()} == {
        "get": ["a"],
        "set": ["b"],
    }
    assert (done.count("a"), done.count("b")) == (3 + 2 * 3, 1 + 2)


def test_the_table_shows_ratios_to_the_base_and_marks_limits() -> None:
    results = {"get": {"stock": summary([2.0]), "ours": summary([1.0])}}
    lines = list(table("microseconds", results, "stock", {"get": {"ours": 0.7}}))
    assert lines[1].split() == ["get", "stock", *["2.00"] * 4, "1.00"]
    assert lines[2].split() == ["get", "ours", *["1.00"] * 4, "0.50", "(limit", "0.7)"]
