"""One device for many callers: answers, order, going away, failing and ending."""

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
import pytest
import torch

import sightline as sl
from sightline.engine.queue import MOST_RESTARTS, Queue
from sightline.engine.turns import giving_up
from sightline.errors import CapacityError, StoppedError
from tests.parity.checkpoints import random_checkpoint

CLOSE = 1e-5
PATIENCE_S = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny"))


@pytest.fixture
def embedder(folder):
    return sl.Embedder.load(folder, device="cpu", dtype="float32")


@pytest.fixture
def reranker(folder):
    return sl.Reranker.load(folder, device="cpu", dtype="float32")


@pytest.fixture
def queue():
    queue = Queue()
    yield queue
    queue.close()


class Held:
    """The first pass of an engine waits until it is let go, so that others gather; every pass is noted."""

    def __init__(self, embedder, monkeypatch):
        self.begun, self.go = threading.Event(), threading.Event()
        self.passes: list[int] = []
        run = embedder._engine.run

        def held(prompts, head):
            self.passes.append(len(prompts))
            self.begun.set()
            assert self.go.wait(PATIENCE_S)
            return run(prompts, head)

        monkeypatch.setattr(embedder._engine, "run", held)


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def picture(seed, size=(64, 48)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def mixed(index):
    """Items of several kinds and instructions."""
    kinds = [
        {"text": f"a red bicycle, number {index}"},
        {"text": f"word {index} " * (1 + index % 40)},
        {"text": "a picture", "image": picture(index)},
        {"text": f"city {index}", "instruction": "Classify the city"},
    ]
    return kinds[index % len(kinds)]


def test_vectors_are_those_of_an_item_alone_whoever_shares_the_pass(embedder, queue):
    alone = np.stack([embedder.embed([mixed(index)])[0] for index in range(51)])
    shared = embedder.shared(queue)
    with ThreadPoolExecutor(51) as pool:
        found = np.stack(list(pool.map(lambda index: shared.embed([mixed(index)])[0], range(51))))
    assert np.abs(found - alone).max() <= CLOSE
    counts = queue.counts()
    assert counts.query.prompts == 51
    assert counts.query.callers > counts.query.passes, "callers shared passes"
    assert counts.query.waiting_prompts == counts.query.waiting_tokens == 0


def test_both_models_at_once_in_both_lanes(embedder, reranker, queue):
    items = [mixed(index) for index in range(40)]
    documents = [mixed(index) for index in range(7)]
    vectors = embedder.embed(items)
    scores = [reranker.score(f"query {index}", documents) for index in range(6)]
    query, bulk, judge = embedder.shared(queue), embedder.shared(queue, "bulk"), reranker.shared(queue)
    with ThreadPoolExecutor(20) as pool:
        indexing = pool.submit(lambda: list(bulk.stream(items)))
        searches = [pool.submit(query.embed, [item]) for item in items]
        reranks = [pool.submit(judge.score, f"query {index}", documents) for index in range(6)]
        assert np.abs(np.stack(indexing.result(PATIENCE_S)) - vectors).max() <= CLOSE
        for search, vector in zip(searches, vectors, strict=True):
            assert np.abs(search.result(PATIENCE_S)[0] - vector).max() <= CLOSE
        for rerank, wanted in zip(reranks, scores, strict=True):
            np.testing.assert_allclose(rerank.result(PATIENCE_S), wanted, atol=CLOSE)
    counts = queue.counts()
    assert counts.bulk.prompts == 40 and counts.query.prompts == 40 + 6 * 7
    assert 0 < counts.query.fill <= 1 and counts.query.busy_s > 0


def test_those_who_come_while_the_device_is_busy_share_the_next_pass(embedder, queue, monkeypatch):
    held = Held(embedder, monkeypatch)
    shared = embedder.shared(queue)
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(shared.embed, ["first"])
        assert held.begun.wait(PATIENCE_S)
        others = [pool.submit(shared.embed, [f"text {index}"]) for index in range(20)]
        until(lambda: queue.counts().query.waiting_prompts == 20)
        held.go.set()
        for future in [first, *others]:
            future.result(PATIENCE_S)
    assert held.passes == [1, 20]
    assert queue.counts().query.callers_per_pass == 10.5


def test_a_short_query_passes_indexing_and_long_requests(embedder, queue, monkeypatch):
    held = Held(embedder, monkeypatch)
    order = []

    def ask(model, name, texts):
        model.embed(texts)
        order.append(name)

    query, bulk = embedder.shared(queue), embedder.shared(queue, "bulk")
    long = [f"{index} " * 300 for index in range(12)]
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask, bulk, "first", ["x"])]
        assert held.begun.wait(PATIENCE_S)
        for waiting, (model, name, texts) in enumerate([(bulk, "bulk", long), (query, "long", long)]):
            futures.append(pool.submit(ask, model, name, texts))
            until(lambda: sum(lane.waiting_prompts > 0 for lane in _lanes(queue)) > waiting)  # noqa: B023
        futures.append(pool.submit(ask, query, "short", ["where"]))
        until(lambda: queue.counts().query.waiting_prompts == 13)
        held.go.set()
        for future in futures:
            future.result(PATIENCE_S)
    assert order[:2] == ["first", "short"] and set(order[2:]) == {"long", "bulk"}


def _lanes(queue):
    counts = queue.counts()
    return counts.query, counts.bulk


def test_an_error_stays_with_its_item_and_its_caller(embedder, queue):
    shared = embedder.shared(queue)
    items = ["good", sl.Item(image=b"no picture"), {"txt": "typo"}, "fine"]
    results = list(shared.stream(items))
    assert [getattr(result, "code", None) for result in results] == [None, "not_media", "option", None]
    with pytest.raises(sl.ItemError, match="item 1"):
        shared.embed(items)
    assert shared.embed([]).shape == (0, 64)
    assert queue.alive


def test_out_of_memory_is_halved_and_what_does_not_fit_is_an_error_of_that_item(embedder, queue, monkeypatch):
    texts = [f"text {index}" for index in range(8)] + ["word " * 200]
    wanted = embedder.embed(texts[:8])
    embedder._engine._forget()
    network, limit = embedder._engine.model, 60
    forward = network.forward

    def scarce(ids, *args, **kwargs):
        if len(ids) > limit:
            raise torch.OutOfMemoryError("out of memory")
        return forward(ids, *args, **kwargs)

    monkeypatch.setattr(network, "forward", scarce)
    results = list(embedder.shared(queue).stream(texts))
    assert np.abs(np.stack(results[:8]) - wanted).max() <= CLOSE
    assert isinstance(results[8], sl.ItemError) and results[8].code == "oom"
    assert queue.alive


def test_a_prompt_that_breaks_the_network_costs_its_caller_alone(embedder, queue, monkeypatch):
    held = Held(embedder, monkeypatch)
    run, broken = embedder._engine.run, embedder._preparer.embedding(sl.Item(text="broken"))

    def fragile(prompts, head):
        if any(np.array_equal(prompt.ids, broken.ids) for prompt in prompts):
            raise RuntimeError("shapes do not match")
        return run(prompts, head)

    monkeypatch.setattr(embedder._engine, "run", fragile)
    shared = embedder.shared(queue)
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(shared.embed, ["first"])
        assert held.begun.wait(PATIENCE_S)
        good = [pool.submit(shared.embed, [f"text {index}"]) for index in range(6)]
        bad = pool.submit(shared.embed, ["broken"])
        until(lambda: queue.counts().query.waiting_prompts == 7)
        held.go.set()
        with pytest.raises(RuntimeError, match="shapes do not match"):
            bad.result(PATIENCE_S)
        for future in [first, *good]:
            assert future.result(PATIENCE_S).shape == (1, 64)
    assert queue.alive and queue.counts().query.waiting_prompts == 0


def test_a_thousand_callers_who_go_away_leave_nothing(embedder, queue, monkeypatch):
    held = Held(embedder, monkeypatch)
    engine = embedder.shared(queue)._through
    prompt = embedder._preparer.embedding(sl.Item(text="somebody's question"))
    blocker = threading.Thread(target=engine.states, args=([prompt],))
    blocker.start()
    assert held.begun.wait(PATIENCE_S)
    alive, refused = [], []

    def ask(gone):
        own = embedder._preparer.embedding(sl.Item(text="somebody's question"))
        alive.append(weakref.ref(own.ids))
        giving_up.set(gone)
        try:
            engine.states([own, own])
        except StoppedError:
            refused.append(gone)

    for _ in range(10):
        events = [threading.Event() for _ in range(100)]
        threads = [threading.Thread(target=copy_context().run, args=(ask, event)) for event in events]
        for thread in threads:
            thread.start()
        until(lambda: queue.counts().query.waiting_prompts == 200)
        for event in events:
            event.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert queue.counts().query.waiting_prompts == 0
    held.go.set()
    blocker.join(PATIENCE_S)
    assert len(refused) == 1_000
    assert held.passes == [1], "nothing ran for those who had gone"
    assert queue.counts().query.dropped == 2_000
    assert not queue._parts
    del threads, events
    gc.collect()
    assert not [ref for ref in alive if ref() is not None]


def test_who_goes_away_is_dropped_by_the_queue_before_the_next_pass(embedder, queue, monkeypatch):
    """Without waiting for the caller's own look."""
    monkeypatch.setattr("sightline.engine.queue.LOOK_S", PATIENCE_S)
    held = Held(embedder, monkeypatch)
    shared, gone = embedder.shared(queue), threading.Event()
    context = copy_context()
    context.run(giving_up.set, gone)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shared.embed, ["first"])
        assert held.begun.wait(PATIENCE_S)
        left = pool.submit(context.run, shared.embed, ["left"])
        until(lambda: queue.counts().query.waiting_prompts == 1)
        gone.set()
        held.go.set()
        first.result(PATIENCE_S)
        with pytest.raises(StoppedError):
            left.result(PATIENCE_S)
    assert held.passes == [1]


def test_who_has_gone_before_it_came_is_not_let_in(embedder, queue):
    gone, context = threading.Event(), copy_context()
    gone.set()
    context.run(giving_up.set, gone)
    with pytest.raises(StoppedError, match="has gone"):
        context.run(embedder.shared(queue).embed, ["text"])
    assert queue.counts().query.passes == 0


def test_an_answer_that_comes_at_the_end_of_a_look_is_an_answer(embedder, queue):
    """The look that has just timed out must not take what has ended for what was left."""

    class Late(threading.Event):
        looks = 0

        def wait(self, timeout=None):
            assert super().wait(PATIENCE_S)
            self.looks += 1
            return self.looks > 1

    prompt = embedder._preparer.embedding(sl.Item(text="text"))
    call = queue.enter(embedder._engine, [prompt], "query", shared=False)
    assert call.done.wait(PATIENCE_S)
    call.done = Late()
    call.done.set()
    (state,) = queue.wait(call)
    assert call.done.looks == 2
    np.testing.assert_allclose(state, embedder._engine.states([prompt])[0], atol=CLOSE)


def test_a_stream_collected_while_the_queue_is_locked_does_not_lock_it_for_ever(embedder, queue):
    """Garbage is collected at any line of any thread, also of one that holds the lock."""
    texts = ["word " * 200 + str(index) for index in range(100)]
    stream = embedder.shared(queue, "bulk").stream(texts)
    next(stream)
    with queue._lock:
        stream.close()
    until(lambda: queue.counts().bulk.waiting_prompts == 0 and not queue._parts)
    assert embedder.shared(queue).embed(["on it goes"]).shape == (1, 64)


def test_a_stream_closed_early_takes_its_prompts_out(embedder, queue):
    texts = ("word " * 200 + str(index) for index in range(10_000))
    stream = embedder.shared(queue, "bulk").stream(texts)
    next(stream)
    stream.close()
    until(lambda: queue.counts().bulk.waiting_prompts == 0 and not queue._parts)
    assert queue.counts().bulk.prompts < 200


def test_streams_are_bounded_and_in_order(embedder, queue):
    texts = ["short", *("word " * (index % 50) + str(index) for index in range(250))]
    most = 0

    def fed():
        nonlocal most
        for text in texts:
            most = max(most, queue.counts().bulk.waiting_tokens)
            yield text

    found = list(embedder.shared(queue, "bulk").stream(fed()))
    assert np.abs(np.stack(found) - embedder.embed(texts)).max() <= CLOSE
    assert most < 3 * 8 * embedder._engine.max_tokens


def test_long_requests_wait_at_the_door_and_short_ones_do_not(embedder, monkeypatch):
    held, queue = Held(embedder, monkeypatch), Queue(most_waiting=2)
    shared = embedder.shared(queue)
    long = ["word " * 150 for _ in range(12)]
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(shared.embed, ["first"])]
        assert held.begun.wait(PATIENCE_S)
        futures.append(pool.submit(shared.embed, long))
        until(lambda: queue.counts().query.waiting_prompts == 12)
        futures.append(pool.submit(shared.embed, long))
        futures.append(pool.submit(shared.embed, ["short"]))
        until(lambda: queue.counts().query.waiting_prompts == 13)
        time.sleep(0.1)
        assert queue.counts().query.waiting_prompts == 13, "the second long request is at the door"
        held.go.set()
        for future in futures:
            future.result(PATIENCE_S)
    assert queue.counts().query.prompts == 26
    queue.close()


def test_closing_finishes_what_runs_and_fails_the_rest(embedder, monkeypatch):
    held, queue = Held(embedder, monkeypatch), Queue()
    shared = embedder.shared(queue)
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(shared.embed, ["runs"])
        assert held.begun.wait(PATIENCE_S)
        waiting = pool.submit(shared.embed, ["waits"])
        until(lambda: queue.counts().query.waiting_prompts == 1)
        closing = pool.submit(queue.close)
        until(lambda: not queue.alive)
        held.go.set()
        assert running.result(PATIENCE_S).shape == (1, 64)
        with pytest.raises(StoppedError, match="closed"):
            waiting.result(PATIENCE_S)
        closing.result(PATIENCE_S)
    with pytest.raises(StoppedError, match="closed"):
        shared.embed(["later"])
    queue.close()
    assert queue.counts().query.waiting_prompts == 0


def test_when_the_device_is_lost_nobody_is_left_waiting(embedder, monkeypatch, caplog):
    error = torch.AcceleratorError("device-side assert")
    held, queue = Held(embedder, monkeypatch), Queue()
    shared = embedder.shared(queue)
    with ThreadPoolExecutor(9) as pool:
        futures = [pool.submit(shared.embed, ["runs"])]
        assert held.begun.wait(PATIENCE_S)
        futures += [pool.submit(shared.embed, [f"waits {index}"]) for index in range(8)]
        until(lambda: queue.counts().query.waiting_prompts == 8)
        monkeypatch.setattr(embedder._engine, "_run", lambda *_: (_ for _ in ()).throw(error))
        held.go.set()
        for future in futures:
            with pytest.raises(StoppedError, match="stopped working"):
                future.result(PATIENCE_S)
    assert not queue.alive and not queue.counts().running and queue.counts().restarts == 0
    with pytest.raises(StoppedError, match="stopped working"):
        shared.embed(["later"])
    assert "stays down" in caplog.text


class Panic(BaseException):
    """As libraries in Rust raise it: no ``Exception``."""


def test_an_error_that_nobody_foresaw_ends_its_pass_and_the_thread_goes_on(embedder, monkeypatch, caplog):
    held, queue = Held(embedder, monkeypatch), Queue()
    shared = embedder.shared(queue)
    plain = embedder.embed
    run = embedder._engine._run

    def once(*args):
        monkeypatch.setattr(embedder._engine, "_run", run)
        raise Panic("a panic")

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(shared.embed, ["runs"])
        assert held.begun.wait(PATIENCE_S)
        waiting = pool.submit(shared.embed, ["waits"])
        until(lambda: queue.counts().query.waiting_prompts == 1)
        monkeypatch.setattr(embedder._engine, "_run", once)
        held.go.set()
        with pytest.raises(StoppedError, match="start again"):
            first.result(PATIENCE_S)
        found = waiting.result(PATIENCE_S)
    assert np.allclose(found, plain(["waits"]), atol=CLOSE)
    counts = queue.counts()
    assert counts.running and counts.restarts == 1 and counts.query.waiting_prompts == 0
    assert "starts again" in caplog.text
    queue.close()


def test_an_error_in_the_choice_of_the_next_pass_ends_what_waits(embedder, monkeypatch):
    queue = Queue()
    shared = embedder.shared(queue)
    choose = queue._turns.next

    def once(now_ms):
        if queue._turns.loads():
            monkeypatch.setattr(queue._turns, "next", choose)
            raise ZeroDivisionError
        return choose(now_ms)

    monkeypatch.setattr(queue._turns, "next", once)
    with pytest.raises(StoppedError, match="start again"):
        shared.embed(["first"])
    assert shared.embed(["second"]).shape == (1, 64)
    assert queue.counts().restarts == 1
    queue.close()


def test_a_thread_that_fails_again_and_again_stays_down(embedder, monkeypatch, caplog):
    monkeypatch.setattr("sightline.engine.queue.PAUSE_S", 0.001)
    monkeypatch.setattr(embedder._engine, "_run", lambda *_: (_ for _ in ()).throw(Panic("a panic")))
    queue = Queue()
    shared = embedder.shared(queue)
    for _ in range(MOST_RESTARTS):
        with pytest.raises(StoppedError, match="start again"):
            shared.embed(["fails"])
    with pytest.raises(StoppedError, match="stopped working"):
        shared.embed(["fails"])
    assert not queue.alive and queue.counts().restarts == MOST_RESTARTS
    assert caplog.text.count("it starts again") == MOST_RESTARTS and caplog.text.count("stays down") == 1
    with pytest.raises(StoppedError, match="stopped working"):
        shared.embed(["later"])


def test_failures_long_apart_are_not_added_up(embedder, monkeypatch):
    monkeypatch.setattr("sightline.engine.queue.PAUSE_S", 0.001)
    monkeypatch.setattr("sightline.engine.queue.RESTARTS_S", 0.0)
    run = embedder._engine._run
    monkeypatch.setattr(embedder._engine, "_run", lambda *_: (_ for _ in ()).throw(Panic("a panic")))
    queue = Queue()
    shared = embedder.shared(queue)
    for _ in range(MOST_RESTARTS + 3):
        with pytest.raises(StoppedError, match="start again"):
            shared.embed(["fails"])
    monkeypatch.setattr(embedder._engine, "_run", run)
    assert shared.embed(["works"]).shape == (1, 64)
    queue.close()


def test_a_queue_that_is_about_to_start_again_can_be_closed(embedder, monkeypatch):
    monkeypatch.setattr("sightline.engine.queue.PAUSE_S", 10.0 * PATIENCE_S)
    monkeypatch.setattr(embedder._engine, "_run", lambda *_: (_ for _ in ()).throw(Panic("a panic")))
    queue = Queue()
    shared = embedder.shared(queue)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(StoppedError, match="start again"):
            shared.embed(["fails"])
        waiting = pool.submit(shared.embed, ["waits"])
        until(lambda: queue.counts().query.waiting_prompts == 1)
        assert queue.alive and not queue.running
        queue.close()
        with pytest.raises(StoppedError, match="closed"):
            waiting.result(PATIENCE_S)
    queue.close()


def test_a_view_shares_the_weights_and_leaves_the_model_as_it_was(embedder, queue):
    view = embedder.shared(queue)
    assert view._engine.model is embedder._engine.model
    assert view.card == embedder.card and view.device == "cpu"
    embedder.embed(["not through the queue"])
    assert queue.counts().query.passes == 0
    again = view.shared(queue, "bulk")
    again.embed(["in the other lane"])
    assert queue.counts().bulk.passes == 1


def test_states_gives_capacity_errors_in_their_places(embedder, queue, monkeypatch):
    prompts = [embedder._preparer.embedding(sl.Item(text=text)) for text in ("a", "b")]
    monkeypatch.setattr(embedder._engine, "run", lambda prompts, head: [CapacityError("no")] * len(prompts))
    assert all(isinstance(found, CapacityError) for found in embedder.shared(queue)._through.states(prompts))
