"""Batches of a user's rows: what the product makes of the same items, the same for the same step, of one task."""

import json
import pickle
from collections import Counter
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from sightline.errors import ConfigError, InputError
from sightline.media.reader import Reader
from sightline.prep.prepare import Budgets, Preparer
from sightline.prep.tokens import Tokenizer
from sightline.train.config import stage_of
from sightline.train.records import open_records
from sightline.train.sampling import Sampling, Task, of_stage
from tests.parity.checkpoints import tokenizer_json

BUDGETS = Budgets(max_length=256, max_pixels=64 * 64, total_pixels=64 * 64 * 4, frame_pixels=64 * 64, max_frames=4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tokenizer_json(), encoding="utf-8")
    return path


def picture(path, seed, size=(40, 56)):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)).save(path)
    return str(path.relative_to(path.parents[1]))


def clip(path, num=6):
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(num):
            frame = np.full((48, 64, 3), 40 * index, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return str(path.relative_to(path.parents[1]))


def rows_of(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return open_records(path)


def texts(num, negatives=0, word="answer", **more):
    return [
        {
            "query": f"query {index}",
            "positives": [f"{word} {index}"],
            "negatives": [f"wrong {index} {place}" for place in range(negatives)],
            **{name: value(index) for name, value in more.items()},
        }
        for index in range(num)
    ]


def mixed(folder):
    """Rows of texts, pictures, videos and mixtures."""
    media = folder / "media"
    image = [picture(media / f"{index}.png", index, (40, 56) if index % 2 else (64, 32)) for index in range(5)]
    frame = [picture(media / f"frame{index}.png", 10 + index) for index in range(4)]
    return [
        {"query": "a red bicycle", "positives": [{"image": image[0]}], "negatives": [{"image": image[1]}, "a car"]},
        {
            "query": {"text": "same, in green", "image": image[2]},
            "positives": [{"text": "green", "image": [image[3], image[4]]}],
            "negatives": ["no"],
            "instruction": "Find the edited picture",
        },
        {"query": "what moves", "positives": [{"video": clip(media / "a.avi")}], "negatives": [{"video": frame[:3]}]},
        {"query": {"video": frame}, "positives": ["four frames"], "negatives": ["three", "two", "one"]},
        {"query": "long " * 400, "positives": ["text " * 400], "negatives": ["cut"]},
    ]


def sampling(tokenizer, *tasks, **options):
    return Sampling(tasks=tasks, tokenizer=tokenizer, budgets=BUDGETS, **options)


def unpacked(packs):
    """(ids, positions) of each prompt, in the caller's order."""
    out = []
    for pack in packs:
        head = np.broadcast_to(np.arange(len(pack.head)), (3, len(pack.head)))
        segments = []
        for end, length in zip(np.cumsum(pack.lengths), pack.lengths, strict=True):
            ids = np.concatenate([pack.head, pack.ids[end - length : end]])
            segments.append((ids, np.concatenate([head, pack.positions[:, end - length : end]], 1)))
        out += [segments[index] for index in pack.order]
    return out


def all_patches(packs):
    return Counter(patches.tobytes() for pack in packs for patches in pack.patches)


def same_batch(first, second):
    """Whether two batches are equal to the bit."""
    return pickle.dumps(_plain(first)) == pickle.dumps(_plain(second))


def _plain(batch):
    def plain(value):
        if isinstance(value, np.ndarray):
            return (value.dtype.str, value.shape, value.tobytes())
        if isinstance(value, (tuple, list)):
            return [plain(entry) for entry in value]
        if hasattr(value, "__slots__"):
            return {name: plain(getattr(value, name)) for name in value.__slots__}
        return repr(value)

    return plain(batch)


def contents(packs, tokenizer):
    """The words of each prompt without its template; the plain tokenizer writes control tokens as nothing."""
    decode = Tokenizer(tokenizer).decode
    texts = [decode([int(token) for token in ids]) for ids, _ in unpacked(packs)]
    return [text.split("user\n", 1)[1].removesuffix("\nassistant\n") for text in texts]


def queries_of(batch, tokenizer):
    return contents(batch.queries, tokenizer)


def documents_of(batch, tokenizer):
    return contents(batch.documents, tokenizer)


# -- prompts ---------------------------------------------------------------------------------------------------------


def test_an_embedders_prompts_are_those_of_the_product(tmp_path, tokenizer):
    records = rows_of(tmp_path / "a.jsonl", mixed(tmp_path))
    task = Task(name="mixed", records=records, kind="contrast", batch=5, negatives=9, instruction="Find it")
    batch = sampling(tokenizer, task, chunk_tokens=400)()(0)
    preparer = Preparer(Tokenizer(tokenizer), Reader(), BUDGETS)
    by_query = {}
    for record in records:
        query = preparer.embedding(record.query, instruction=record.instruction or "Find it")
        by_query[query.ids.tobytes()] = (query, record)
    chosen = [by_query[ids.tobytes()] for ids, _ in unpacked(batch.queries)]
    assert len({id(record) for _, record in chosen}) == 5
    positives = [preparer.embedding(record.positives[0]) for _, record in chosen]
    negatives = [preparer.embedding(item) for _, record in chosen for item in record.negatives]
    for packs, expected in (
        (batch.queries, [query for query, _ in chosen]),
        (batch.documents, [*positives, *negatives]),
    ):
        got = unpacked(packs)
        assert len(got) == len(expected)
        for (ids, positions), prompt in zip(got, expected, strict=True):
            assert (ids == prompt.ids).all()
            assert (positions == prompt.positions).all()
        assert all_patches(packs) == Counter(v.patches.tobytes() for prompt in expected for v in prompt.visuals)
    assert batch.owner is not None
    assert batch.owner.tolist() == [row for row, (_, record) in enumerate(chosen) for _ in record.negatives]


def test_a_rerankers_prompts_are_those_of_the_product(tmp_path, tokenizer):
    records = rows_of(tmp_path / "a.jsonl", mixed(tmp_path))
    task = Task(name="mixed", records=records, kind="yes_no", batch=5, negatives=2, instruction="Say it")
    batch = sampling(tokenizer, task)()(0)
    preparer = Preparer(Tokenizer(tokenizer), Reader(), BUDGETS)

    def pair(record, item):
        told = record.instruction or "Say it"
        return preparer.pair(preparer.read(record.query), preparer.read(item), instruction=told).ids.tobytes()

    matches = {pair(record, record.positives[0]): record for record in records}
    assert sorted(batch.groups) == sorted(1 + min(2, len(record.negatives)) for record in records)
    got = [ids.tobytes() for ids, _ in unpacked(batch.queries)]
    assert sum(batch.groups) == len(got) and batch.documents == ()
    place = 0
    seen = []
    for size in batch.groups:
        record = matches[got[place]]
        wrong = [pair(record, item) for item in record.negatives]
        assert set(got[place + 1 : place + size]) <= set(wrong)
        assert len(set(got[place + 1 : place + size])) == size - 1
        seen.append(record)
        place += size
    assert len({id(record) for record in seen}) == 5


def test_an_item_s_own_instruction_goes_first(tmp_path, tokenizer):
    row = {"query": {"text": "q", "instruction": "Own one"}, "positives": ["p"], "negatives": ["n"], "instruction": "R"}
    records = rows_of(tmp_path / "a.jsonl", [row])
    decode = Tokenizer(tokenizer).decode
    for kind in ("contrast", "yes_no"):
        task = Task(name="a", records=records, kind=kind, batch=1, negatives=1, instruction="T")
        batch = sampling(tokenizer, task)()(0)
        assert "Own one" in decode([int(token) for token in unpacked(batch.queries)[0][0]])


def test_packs_hold_at_most_so_many_tokens_in_order(tmp_path, tokenizer):
    records = rows_of(tmp_path / "a.jsonl", texts(30))
    whole = sampling(tokenizer, Task(name="a", records=records, kind="contrast", batch=20))()(0)
    cut = sampling(tokenizer, Task(name="a", records=records, kind="contrast", batch=20), chunk_tokens=150)()(0)
    assert len(whole.queries) == 1
    assert len(cut.queries) > 3
    assert all(len(pack.head) + sum(pack.lengths) <= 150 for pack in cut.queries + cut.documents)
    assert queries_of(cut, tokenizer) == queries_of(whole, tokenizer)
    assert documents_of(cut, tokenizer) == [text.replace("query", "answer") for text in queries_of(cut, tokenizer)]


# -- order -----------------------------------------------------------------------------------------------------------


def three_tasks(tmp_path, tokenizer, **options):
    one = rows_of(tmp_path / "one.jsonl", texts(23, 4, word="one"))
    two = rows_of(tmp_path / "two.jsonl", texts(9, 1, word="two", score=lambda index: index / 9))
    for_graded = rows_of(tmp_path / "three.jsonl", texts(11, word="three", score=lambda index: index / 9))
    return sampling(
        tokenizer,
        Task(name="one", records=one, kind="contrast", batch=6, negatives=2, weight=2),
        Task(name="two", records=two, kind="classes", batch=4),
        Task(name="three", records=for_graded, kind="graded", batch=4),
        **options,
    )


def test_a_step_is_the_same_whoever_makes_it(tmp_path, tokenizer):
    source = three_tasks(tmp_path, tokenizer, seed=5)
    make = source()
    batches = [make(step) for step in range(12)]
    again = pickle.loads(pickle.dumps(source))()
    for step in (7, 3, 11, 7):
        assert same_batch(again(step), batches[step])
    assert not same_batch(batches[7], batches[8])
    other = three_tasks(tmp_path, tokenizer, seed=6)()
    assert [other(step).task for step in range(12)] != [batch.task for batch in batches]


def test_batches_are_of_one_task_and_of_its_size(tmp_path, tokenizer):
    make = three_tasks(tmp_path, tokenizer)()
    sizes = {"one": (6, 18), "two": (4, 8), "three": (4, 4)}
    seen: Counter[str] = Counter()
    for step in range(30):
        batch = make(step)
        seen[batch.task] += 1
        documents = documents_of(batch, tokenizer)
        num = sizes[batch.task][0]
        assert (len(queries_of(batch, tokenizer)), len(documents)) == sizes[batch.task]
        assert all(text.startswith(batch.task) for text in documents[:num])
        if batch.kind == "graded":
            assert batch.scores == pytest.approx([int(text.split()[1]) / 9 for text in documents])
        else:
            numbers = [text.split()[1] for text in documents]
            assert [numbers[owner] for owner in batch.owner] == numbers[num:]
    assert set(seen) == set(sizes)


def test_every_row_once_an_epoch(tmp_path, tokenizer):
    records = rows_of(tmp_path / "a.jsonl", texts(10))
    make = sampling(tokenizer, Task(name="a", records=records, kind="contrast", batch=4))()
    line = [query for step in range(5) for query in queries_of(make(step), tokenizer)]
    assert sorted(line[:10]) == sorted(line[10:]) == sorted(f"query {index}" for index in range(10))
    assert line[:10] != line[10:]


def test_processes_share_a_step(tmp_path, tokenizer):
    source = three_tasks(tmp_path, tokenizer)
    make = source()
    for step in range(8):
        whole, parts = make(step), [make(step, rank, 2) for rank in range(2)]
        assert {part.task for part in parts} == {whole.task}
        queries = queries_of(whole, tokenizer)
        assert [queries_of(part, tokenizer) for part in parts] == [queries[0::2], queries[1::2]]
    own = replace(source, rank=1, world=2)()
    assert same_batch(own(3), make(3, 1, 2))
    with pytest.raises(ConfigError, match="batch 6 cannot be shared equally by 4 processes"):
        replace(source, world=4)


def test_positives_and_negatives_change_from_epoch_to_epoch(tmp_path, tokenizer):
    row = {"query": "q", "positives": ["p0", "p1", "p2"], "negatives": [f"n{index}" for index in range(6)]}
    task = Task(name="a", records=rows_of(tmp_path / "a.jsonl", [row]), kind="contrast", batch=1, negatives=2)
    make = sampling(tokenizer, task)()
    drawn = [documents_of(make(step), tokenizer) for step in range(40)]
    assert {documents[0] for documents in drawn} == {"p0", "p1", "p2"}
    assert {text for documents in drawn for text in documents[1:]} == {f"n{index}" for index in range(6)}
    assert all(len(set(documents)) == 3 for documents in drawn)


def test_the_teacher_speaks_of_the_negatives_that_were_drawn(tmp_path, tokenizer):
    rows = texts(6, 5, teacher=lambda index: [100.0 * index, *(100.0 * index + 1 + place for place in range(5))])
    task = Task(name="a", records=rows_of(tmp_path / "a.jsonl", rows), kind="distil", batch=4, negatives=3)
    batch = sampling(tokenizer, task)()(0)
    documents = documents_of(batch, tokenizer)
    assert batch.teacher.shape == (4, 4) and batch.owner.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for row in range(4):
        said = [100 * int(documents[row].split()[1])]
        for text in documents[4 + 3 * row : 7 + 3 * row]:
            number, place = map(int, text.split()[1:])
            said.append(100 * number + 1 + place)
        assert batch.teacher[row].tolist() == said


# -- what answers what -----------------------------------------------------------------------------------------------


def test_same_is_true_for_equal_documents_queries_and_keys(tmp_path, tokenizer):
    picture(tmp_path / "media" / "a.png", 1)
    picture(tmp_path / "media" / "copy.png", 1)
    rows = [
        {"query": "q0", "positives": [{"image": "media/a.png"}]},
        {"query": "q1", "positives": [{"image": "media/copy.png"}]},  # the same picture by another name
        {"query": "q2", "positives": ["two"], "key": "k"},
        {"query": "q3", "positives": ["three"], "key": "k"},
        {"query": "q4", "positives": ["four"], "negatives": ["two"]},  # a negative that answers another query
        {"query": "q5", "positives": ["five"]},
        {"query": "q5", "positives": ["five more"]},  # the same query
    ]
    task = Task(name="a", records=rows_of(tmp_path / "a.jsonl", rows), kind="contrast", batch=7)
    batch = sampling(tokenizer, task)()(0)
    documents = documents_of(batch, tokenizer)
    queries = queries_of(batch, tokenizer)
    assert batch.same.shape == (7, 8) and documents[7] == "two"
    fives = {"five", "five more"}
    for row in range(7):
        for column in range(8):
            query = queries[row]
            expected = {
                "q0": column < 7 and queries[column] == "q1",
                "q1": column < 7 and queries[column] == "q0",
                "q2": documents[column] in {"two", "three"} and column != row,
                "q3": documents[column] == "two" and column < 7,
                "q4": False,
                "q5": documents[column] in fives and column != row,
            }[query]
            assert batch.same[row, column] == expected, (query, documents[column])


def test_another_positive_of_a_query_is_no_negative(tmp_path, tokenizer):
    rows = [{"query": "q0", "positives": ["a", "b"]}, {"query": "q1", "positives": ["b"]}, *texts(2)]
    task = Task(name="a", records=rows_of(tmp_path / "a.jsonl", rows), kind="contrast", batch=4)
    batch = sampling(tokenizer, task)()(0)
    queries = queries_of(batch, tokenizer)
    assert batch.same[queries.index("q0"), queries.index("q1")]
    others = [queries.index("query 0"), queries.index("query 1")]
    assert not batch.same[others].any() and not batch.same[:, others].any()


# -- what goes wrong -------------------------------------------------------------------------------------------------


def pictures(folder, num, broken=()):
    rows = [
        {"query": f"query {index}", "positives": [{"image": picture(folder / "media" / f"{index}.png", index)}]}
        for index in range(num)
    ]
    for index in broken:
        (folder / "media" / f"{index}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return rows_of(folder / "a.jsonl", rows)


def test_a_broken_picture_costs_its_row_alone(tmp_path, tokenizer, caplog):
    records = pictures(tmp_path, 12, broken=[4])
    source = sampling(tokenizer, Task(name="a", records=records, kind="contrast", batch=4))
    make = source()
    seen: Counter[str] = Counter()
    for step in range(6):
        batch = make(step)
        queries = queries_of(batch, tokenizer)
        assert len(set(queries)) == 4 and len(unpacked(batch.documents)) == 4
        seen.update(queries)
        assert same_batch(source()(step), batch)
    assert seen["query 4"] == 0 and len(seen) == 11
    make_again = source()
    caplog.clear()
    for step in range(6):
        make_again(step)
    assert make_again.failed >= 2 and make_again.tried == 24 + make_again.failed
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert "a.jsonl, line 5" in said[0] and "4.png" in said[0] and "damaged" in said[0]


def test_processes_replace_a_row_by_different_ones(tmp_path, tokenizer):
    records = pictures(tmp_path, 12, broken=[0, 5, 7])
    make = sampling(tokenizer, Task(name="a", records=records, kind="contrast", batch=4), max_failures=1)()
    for step in range(9):
        parts = [queries_of(make(step, rank, 2), tokenizer) for rank in range(2)]
        assert [len(part) for part in parts] == [2, 2]
        assert len({query for part in parts for query in part}) == 4


def test_with_no_row_left_one_stands_twice(tmp_path, tokenizer):
    records = pictures(tmp_path, 4, broken=[2])
    batch = sampling(tokenizer, Task(name="a", records=records, kind="contrast", batch=4))()(0)
    queries = queries_of(batch, tokenizer)
    assert len(queries) == 4 and len(set(queries)) == 3 and "query 2" not in queries
    twice = [row for row, query in enumerate(queries) if queries.count(query) == 2]
    assert batch.same[twice[0], twice[1]] and batch.same[twice[1], twice[0]] and batch.same.sum() == 2


def test_missing_files_and_media_over_the_budget_are_counted_too(tmp_path, tokenizer, caplog):
    rows = texts(10)
    rows[3]["query"] = {"image": "none.png"}
    rows[6]["positives"] = [{"image": [picture(tmp_path / "media" / "a.png", 0, (64, 64))] * 80}]
    make = sampling(tokenizer, Task(name="a", records=rows_of(tmp_path / "a.jsonl", rows), kind="contrast", batch=5))()
    for step in range(2):
        assert not {"query 3", "query 6"} & set(queries_of(make(step), tokenizer))
    said = " ".join(record.message for record in caplog.records)
    assert "none.png: the file cannot be opened" in said
    assert "line 7: the pictures alone are" in said


def test_too_many_broken_pictures_end_the_run(tmp_path, tokenizer):
    records = pictures(tmp_path, 40, broken=range(0, 40, 2))
    make = sampling(tokenizer, Task(name="a", records=records, kind="contrast", batch=4))()
    with pytest.raises(InputError, match=r"20 of \d+ examples cannot be read, over 10%; the last is .*a\.jsonl, line"):
        for step in range(40):
            make(step)
    all_broken = pictures(tmp_path, 4, broken=range(4))
    make = sampling(tokenizer, Task(name="a", records=all_broken, kind="contrast", batch=2))()
    with pytest.raises(InputError, match="task a: none of the rows of step 0 can be read"):
        make(0)


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("graded", {}, "score is missing"),
        ("graded", {"score": 1, "negatives": ["n"]}, "a graded row has one positive and no negatives"),
        ("distil", {"negatives": ["n", "m"]}, "teacher is missing"),
        ("distil", {"negatives": ["n"], "teacher": [1, 2]}, "negatives has 1 entries; the task takes 2 of each row"),
        ("classes", {}, "negatives is empty"),
        ("yes_no", {}, "negatives is empty"),
    ],
)
def test_rows_that_lack_what_their_loss_needs(tmp_path, tokenizer, kind, row, said):
    records = rows_of(tmp_path / "a.jsonl", [{"query": "q", "positives": ["p"], **row}])
    source = sampling(tokenizer, Task(name="mine", records=records, kind=kind, batch=1, negatives=2))
    for call in (source.check, lambda: source()(0)):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == f"{tmp_path / 'a.jsonl'}, line 1: {said} (task mine, kind {kind})"


def test_check_reads_every_row_but_no_media(tmp_path, tokenizer):
    rows = [*texts(3), {"query": {"image": "none.png"}, "positives": ["p"]}]
    task = Task(name="a", records=rows_of(tmp_path / "a.jsonl", rows), kind="contrast", batch=1)
    sampling(tokenizer, task).check()
    task = Task(name="a", records=rows_of(tmp_path / "b.jsonl", [*rows, {"query": "q"}]), kind="contrast", batch=1)
    with pytest.raises(InputError, match=r"b\.jsonl, line 5: the field 'positives' is missing"):
        sampling(tokenizer, task).check()


def test_options_out_of_range(tmp_path, tokenizer):
    records = rows_of(tmp_path / "a.jsonl", texts(3))
    with pytest.raises(ConfigError, match="batch must be from 1 to its 3 rows, not 4"):
        Task(name="a", records=records, kind="contrast", batch=4)
    with pytest.raises(ConfigError, match="negatives must be at least 1, not 0"):
        Task(name="a", records=records, kind="yes_no", batch=1, negatives=0)
    task = Task(name="a", records=records, kind="contrast", batch=1)
    judged = Task(name="b", records=records, kind="yes_no", batch=1)
    with pytest.raises(ConfigError, match="two tasks have one name"):
        sampling(tokenizer, task, task)
    with pytest.raises(ConfigError, match="cannot be mixed"):
        sampling(tokenizer, task, judged)
    with pytest.raises(ConfigError, match="weight over 0"):
        sampling(tokenizer, Task(name="a", records=records, kind="contrast", batch=1, weight=0))
    with pytest.raises(ConfigError, match="rank must be from 0 to 1"):
        sampling(tokenizer, task, rank=2, world=2)


def test_a_stage_s_file_becomes_its_batches(tmp_path, tokenizer):
    rows_of(tmp_path / "a.jsonl", texts(6, 2))
    rows_of(tmp_path / "b.jsonl", texts(5, 2, word="other"))
    raw = {
        "start": "builtin",
        "out": "run",
        "steps": 3,
        "seed": 4,
        "chunk_tokens": 90,
        "max_length": 64,
        "max_pixels": 4096,
        "task": [{"name": "t", "data": ["a.jsonl", "b.jsonl"], "batch": 11, "negatives": 2, "instruction": "Do."}],
    }
    source = of_stage(stage_of(raw, "embedder", tmp_path), tokenizer)
    assert (source.budgets.max_length, source.budgets.max_pixels, source.seed) == (64, 4096, 4)
    batch = source()(0)
    assert batch.kind == "contrast" and batch.same is not None
    assert len(batch.same) == 11 and len(batch.queries) > 1
    assert {text.split()[0] for text in documents_of(batch, tokenizer)[:11]} == {"answer", "other"}


def test_a_model_that_is_served_with_less_is_trained_with_less(tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    (tmp_path / "sightline.json").write_text('{"max_pixels": 8192, "max_frames": 6, "trust": 0.5}')
    rows_of(tmp_path / "a.jsonl", texts(2))
    raw = {"start": "builtin", "out": "run", "steps": 1, "task": [{"name": "t", "data": "a.jsonl", "batch": 2}]}
    budgets = of_stage(stage_of(raw, "embedder", tmp_path), tmp_path / "tokenizer.json").budgets
    assert (budgets.max_pixels, budgets.max_frames, budgets.max_length) == (8192, 6, 2048)
