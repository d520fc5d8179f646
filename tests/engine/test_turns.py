"""Whose turn it is: integers and a clock that only the test moves."""

from hypothesis import given, strategies as st

from sightline.engine.turns import LANES, Load, Turns


def load(*costs, lane="query", group="a", at=0, budget=10):
    return Load.of(costs, lane=lane, group=group, budget=budget, arrived_ms=at)


def turns_of(*loads, **options):
    turns = Turns(**options)
    for one in loads:
        turns.add(one)
    return turns


def taken(turn):
    return [(one, list(places)) for one, places in turn.parts]


def test_a_query_goes_before_bulk_work_that_came_first():
    bulk, query = load(1, lane="bulk"), load(9)
    turns = turns_of(bulk, query)
    assert taken(turns.next(0)) == [(query, [0])]
    assert taken(turns.next(0)) == [(bulk, [0])]
    assert turns.next(0) is None


def test_bulk_work_gets_one_pass_after_it_was_passed_over_long_enough():
    turns = turns_of(load(*[10] * 9, lane="bulk"), share_ms=500)
    lanes = []
    for now_ms in range(0, 2_000, 100):
        turns.add(load(10, at=now_ms))
        lanes.append(turns.next(now_ms).lane)
    # passed over from 0 to 499; its pass at 500 ends at 600, from where it counts again
    assert [index for index, lane in enumerate(lanes) if lane == "bulk"] == [5, 11, 17]


def test_a_pass_of_bulk_work_is_half_as_long_while_somebody_waits():
    bulk = load(*[1] * 20, lane="bulk")
    turns = turns_of(bulk, load(10), share_ms=250)
    busy = turns.next(300)
    assert (busy.lane, busy.cost, busy.budget) == ("bulk", 5, 5)
    assert turns.next(310).lane == "query"
    idle = turns.next(320)
    assert (idle.lane, idle.cost, idle.budget) == ("bulk", 10, 10)


def test_a_long_pass_of_bulk_work_is_not_followed_by_another():
    turns = turns_of(load(10, 10, lane="bulk"), share_ms=500)
    turns.add(load(10, at=0))
    assert turns.next(600).lane == "bulk"
    assert turns.next(5_000).lane == "query", "the time of its own pass does not count as being passed over"


def test_the_least_work_goes_first_and_equal_work_in_the_order_of_coming():
    long, first, second = load(9, 9), load(10), load(10)
    turns = turns_of(long, first, second)
    assert [taken(turns.next(0))[0][0] for _ in range(4)] == [first, second, long, long]


def test_what_is_left_counts_not_what_there_was():
    nearly = load(10, 2)
    turns = turns_of(nearly)
    turns.next(0)
    turns.add(load(5, group="b"))
    assert taken(turns.next(0)) == [(nearly, [1])]


def test_a_load_that_waited_goes_before_shorter_ones_oldest_first():
    older, old = load(10, 10, at=0), load(10, at=1)
    turns = turns_of(older, old, age_ms=1_000)
    order = []
    for now_ms in range(900, 1_400, 100):
        turns.add(load(1, at=now_ms, group="fresh"))
        order.append(taken(turns.next(now_ms))[0][0])
    assert order[1:] == [older, older, old, order[4]]
    assert order[0].group == order[4].group == "fresh"


def test_loads_of_one_group_share_a_pass_up_to_the_budget():
    a, b, c, other = load(3, 3), load(2, 7), load(4), load(9, group="b")
    turn = turns_of(a, b, c, other).next(0)
    # c (4 left), then a (6 left) whole: nothing of b fits
    assert taken(turn) == [(c, [0]), (a, [0, 1])]
    assert (turn.cost, turn.budget) == (10, 10)


def test_lanes_do_not_share_a_pass():
    turn = turns_of(load(1), load(1, lane="bulk")).next(0)
    assert turn.lane == "query" and len(turn.parts) == 1


def test_a_prompt_over_the_budget_runs_alone():
    huge = load(25, 3)
    turns = turns_of(huge, load(40))
    assert taken(turns.next(0)) == [(huge, [0])]
    assert taken(turns.next(0)) == [(huge, [1])]


def test_one_caller_alone_gets_the_batches_of_plan():
    from sightline.engine.plan import plan

    costs = [5, 9, 1, 3, 3, 8]
    turns = turns_of(load(*costs))
    batches = []
    while (turn := turns.next(0)) is not None:
        batches.append(list(turn.parts[0][1]))
    assert batches == plan(costs, 10)


def test_what_is_dropped_does_not_run():
    gone, stays = load(2, 2), load(3)
    turns = turns_of(gone, stays)
    assert turns.drop(gone) == 2 and turns.drop(gone) == 0
    assert taken(turns.next(0)) == [(stays, [0])]
    assert turns.next(0) is None and turns.loads() == []


@given(
    arrivals=st.lists(
        st.tuples(
            st.sampled_from(LANES),
            st.sampled_from("ab"),
            st.lists(st.integers(1, 30), max_size=6),
            st.integers(0, 300),
        ),
        max_size=30,
    ),
    pass_ms=st.integers(1, 400),
)
def test_everything_runs_once_in_passes_that_fit(arrivals, pass_ms):
    turns, now_ms, total = Turns(), 0, 0
    ran: dict[Load, list[int]] = {}
    pending = []
    for lane, group, costs, pause_ms in arrivals:
        now_ms += pause_ms
        pending.append(Load.of(costs, lane=lane, group=group, budget=20, arrived_ms=now_ms))
        total += len(costs)
    now_ms = 0
    while pending or turns.loads():
        while pending and (pending[0].arrived_ms <= now_ms or not turns.loads()):
            now_ms = max(now_ms, pending[0].arrived_ms)
            turns.add(pending.pop(0))
        turn = turns.next(now_ms)
        now_ms += pass_ms
        if turn is None:
            continue
        assert len({(one.lane, one.group) for one, _ in turn.parts}) == 1
        assert turn.cost <= turn.budget or sum(len(places) for _, places in turn.parts) == 1
        for one, places in turn.parts:
            ran.setdefault(one, []).extend(places)
    assert sum(len(places) for places in ran.values()) == total
    assert all(len(set(places)) == len(places) for places in ran.values())


@given(st.lists(st.integers(1, 10), min_size=1, max_size=20), st.integers(10, 200))
def test_nothing_starves_beside_endless_short_work(costs, pass_ms):
    """A long load ends in the time that its age, what is older and its own passes take, whatever comes after it."""
    turns, long, now_ms, passes = turns_of(age_ms=1_000), load(*costs, 10, 10, 10), 0, 0
    turns.add(long)
    while long.waiting:
        turns.add(load(1, at=now_ms, group="short"))
        turn = turns.next(now_ms)
        passes += int(any(one is long for one, _ in turn.parts))
        now_ms += pass_ms
        assert now_ms <= 1_000 + (passes + 1) * pass_ms
