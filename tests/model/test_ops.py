"""Each fast body beside its plain twin."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from sightline.model import ops
from sightline.model.ops import attention, attention_last, attention_plain, rms_norm
from sightline.model.short import attention_short


def draw(length, heads, width, seed):
    return torch.randn(length, heads, width, generator=torch.Generator().manual_seed(seed))


some_segments = given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    groups=st.sampled_from([1, 2, 4]),
    causal=st.booleans(),
    prefix=st.integers(0, 5),
)


@pytest.mark.parametrize("training", [True, False])
@settings(deadline=None, max_examples=60)
@some_segments
def test_attention_equals_the_plain_one(training, lengths, groups, causal, prefix):
    total = sum(lengths)
    q, k, v = draw(total, 4, 8, 0), draw(total, 4 // groups, 8, 1), draw(total, 4 // groups, 8, 2)
    shared = (draw(prefix, 4 // groups, 8, 3), draw(prefix, 4 // groups, 8, 4)) if prefix else None
    last = torch.tensor(lengths).cumsum(0) - 1
    with torch.inference_mode(not training):
        fast = attention(q, k, v, lengths, causal=causal, prefix=shared)
        ends = attention_last(q[last], k, v, lengths, prefix=shared)
    plain = attention_plain(q, k, v, lengths, causal=causal, prefix=shared)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    if causal:
        torch.testing.assert_close(ends, plain[last], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("body", [attention, attention_short])
@settings(deadline=None, max_examples=60)
@some_segments
def test_gradients_equal_those_of_the_plain_one(body, lengths, groups, causal, prefix):
    total = sum(lengths)
    inputs = [draw(total, 4, 8, 0), draw(total, 4 // groups, 8, 1), draw(total, 4 // groups, 8, 2)]
    inputs += [draw(prefix, 4 // groups, 8, 3), draw(prefix, 4 // groups, 8, 4)] if prefix else []
    q, k, v, *shared = (x.requires_grad_() for x in inputs)
    both = (shared[0], shared[1]) if shared else None
    fast = body(q, k, v, lengths, causal=causal, prefix=both)
    plain = attention_plain(q, k, v, lengths, causal=causal, prefix=both)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    back = draw(total, 4, 8, 5)
    ours, theirs = (torch.autograd.grad(out, inputs, back) for out in (fast, plain))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


def test_training_in_bf16_has_gradients_near_those_of_float32():
    lengths = [3, 4, 4, 9, 30]
    q, k, v = (draw(50, heads, 16, seed).requires_grad_() for heads, seed in ((4, 0), (2, 1), (2, 2)))
    back = draw(50, 4, 16, 3)
    with torch.autocast("cpu", torch.bfloat16):
        half = attention(q, k, v, lengths, causal=True)
    ours = torch.autograd.grad(half.float(), [q, k, v], back)
    theirs = torch.autograd.grad(attention_plain(q, k, v, lengths, causal=True), [q, k, v], back)
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("width", [64, 72, 128])
def test_attention_in_bf16_is_near_float32(width):
    lengths = [7, 7, 30]
    q, k, v = (draw(44, 2, width, seed) for seed in range(3))
    half = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), lengths, causal=True)
    torch.testing.assert_close(half.float(), attention_plain(q, k, v, lengths, causal=True), atol=0.05, rtol=0.05)


def test_a_long_segment_after_a_prefix_equals_the_plain_one():
    lengths = [600, 3]
    q, k, v = draw(603, 2, 8, 0), draw(603, 1, 8, 1), draw(603, 1, 8, 2)
    shared = (draw(20, 1, 8, 3), draw(20, 1, 8, 4))
    fast = attention(q, k, v, lengths, causal=True, prefix=shared)
    torch.testing.assert_close(
        fast, attention_plain(q, k, v, lengths, causal=True, prefix=shared), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_full_attention_head_by_head_equals_the_plain_one(groups, monkeypatch):
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no product of oneDNN")
    monkeypatch.setattr(ops, "_is_onednn_faster", lambda: True)
    asked, product = [], ops._product

    def counted(x, weights):
        asked.append(x.shape)
        return product(x, weights)

    monkeypatch.setattr(ops, "_product", counted)
    lengths = [5, 1100, 1100, 300]
    q, k, v = draw(2505, 2, 16, 0), draw(2505, 2 // groups, 16, 1), draw(2505, 2 // groups, 16, 2)
    plain = attention_plain(q, k, v, lengths, causal=False)
    torch.testing.assert_close(attention(q, k, v, lengths, causal=False), plain, atol=1e-5, rtol=1e-5)
    # two products for each of two heads and five blocks, of the two long segments alone
    assert len(asked) == 2 * 2 * 2 * 5
    attention(q.requires_grad_(), k, v, lengths, causal=False).sum().backward()
    assert q.grad is not None and len(asked) == 40


@pytest.mark.parametrize("groups", [1, 2])
def test_full_attention_in_bf16_is_near_float32(groups):
    lengths = [600, 5, 5]
    q, k, v = draw(610, 2, 16, 0), draw(610, 2 // groups, 16, 1), draw(610, 2 // groups, 16, 2)
    half = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), lengths, causal=False)
    torch.testing.assert_close(half.float(), attention_plain(q, k, v, lengths, causal=False), atol=0.03, rtol=0.05)


@pytest.mark.parametrize("prefix", [0, 21])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_causal_attention_in_bf16_is_near_float32(groups, prefix):
    lengths = [300, 48, 48, 5, 129]
    total = sum(lengths)
    q, k, v = draw(total, 4, 16, 0), draw(total, 4 // groups, 16, 1), draw(total, 4 // groups, 16, 2)
    shared = (draw(prefix, 4 // groups, 16, 3), draw(prefix, 4 // groups, 16, 4)) if prefix else None
    narrow = None if shared is None else (shared[0].bfloat16(), shared[1].bfloat16())
    half = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), lengths, causal=True, prefix=narrow)
    plain = attention_plain(q, k, v, lengths, causal=True, prefix=shared)
    torch.testing.assert_close(half.float(), plain, atol=0.05, rtol=0.05)
    later = v.clone()
    later[250] += 100.0  # in the first segment: what stands before it and the other segments must not change
    other = attention(q.bfloat16(), k.bfloat16(), later.bfloat16(), lengths, causal=True, prefix=narrow)
    assert torch.equal(other[:250], half[:250]) and torch.equal(other[300:], half[300:])
    assert not torch.equal(other[250:300], half[250:300])


def test_what_inference_kept_serves_training():
    lengths = [600]
    q, k, v = (draw(600, 2, 16, seed).bfloat16() for seed in range(3))
    with torch.inference_mode():
        before = attention(q.clone(), k.clone(), v.clone(), lengths, causal=True)
    learned = attention(q.requires_grad_(), k, v, lengths, causal=True)
    learned.float().square().sum().backward()
    assert torch.equal(learned.detach(), before) and q.grad is not None and q.grad.isfinite().all()


def test_no_segment_sees_another():
    q, k, v = (draw(10, 2, 8, seed) for seed in range(3))
    before = attention(q, k, v, [4, 6], causal=False)
    k[:4], v[:4] = 1e4, float("nan")
    assert torch.equal(attention(q, k, v, [4, 6], causal=False)[4:], before[4:])


def test_rms_norm_by_hand():
    out = rms_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]), 0.0)
    torch.testing.assert_close(out, torch.tensor([[3.0, 8.0]]) / (12.5**0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_is_the_same_in_training_and_leaves_its_input(dtype):
    x, weight = draw(5, 3, 16, 0).to(dtype), draw(1, 1, 16, 1)[0, 0].to(dtype)
    before = x.clone()
    alone = rms_norm(x, weight, 1e-6)
    assert torch.equal(x, before)
    trained = rms_norm(x.requires_grad_(), weight, 1e-6)
    torch.testing.assert_close(alone, trained.detach(), atol=1e-6, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6)
    trained.sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
