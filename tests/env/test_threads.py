"""Work beside its caller: in order, no further than one step, and what it raises is raised."""

import threading

import pytest

from musicbox_env.threads import Behind, ahead


def numbers(made, upto, fails=None):
    for number in range(upto):
        if number == fails:
            raise ValueError(f"no {number}")
        made.append(threading.current_thread())
        yield number


def test_items_are_made_ahead_on_a_thread_and_in_order():
    made = []
    assert list(ahead(numbers(made, 5))) == [0, 1, 2, 3, 4]
    assert threading.current_thread() not in made
    assert not any(thread.is_alive() for thread in made)
    assert list(ahead(iter(()))) == []


def test_what_is_left_early_is_made_no_further_than_one_item():
    made = []
    items = ahead(numbers(made, 50))
    assert [next(items), next(items)] == [0, 1]
    items.close()
    assert len(made) <= 3
    assert not any(thread.is_alive() for thread in made)


def test_an_error_comes_behind_the_items_before_it():
    items = ahead(numbers([], 9, fails=3))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no 3"):
        next(items)


def test_calls_run_one_after_the_other():
    done = []
    with Behind() as behind:
        for number in range(9):
            behind.do(done.append, number)
            assert len(done) >= number
        behind.wait()
        assert done == list(range(9))


def test_what_a_call_raises_is_raised_by_the_next_or_at_the_end():
    def fail():
        raise OSError("full")

    with pytest.raises(OSError, match="full"), Behind() as behind:
        behind.do(fail)
    with Behind() as behind:
        behind.do(fail)
        with pytest.raises(OSError, match="full"):
            behind.do(print)


def test_an_error_of_the_block_is_not_hidden():
    def fail():
        raise OSError("full")

    def block():
        with Behind() as behind:
            behind.do(fail)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        block()
