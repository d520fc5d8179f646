"""What learns, what is merged back, and what peft can put on the published model."""

import json

import pytest
import torch
import transformers
from peft import PeftModel

from sightline.errors import ConfigError
from sightline.model.weights import Checkpoint
from sightline.train import adapters
from sightline.train.config import Loss
from sightline.train.contrast import Contrast, contrast_step
from sightline.train.export import export_checkpoint
from sightline.train.packing import forward
from sightline.train.processes import Processes
from tests.train.tiny import Held, batch_of, folder_of, network_of, stage_for

ALONE = Processes(torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("tiny") / "checkpoint")


def adapted(folder, out, **more):
    """A network with updates that are no longer 0."""
    network = network_of(folder)
    stage = stage_for(out, folder, lora={"rank": 4, "alpha": 8}, **more)
    torch.manual_seed(0)
    adapters.settle(network, stage)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return network, stage


def test_only_the_updates_of_the_named_layers_learn(folder, tmp_path):
    network, _ = adapted(folder, tmp_path)
    learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert len(learning) == 2 * 6 * 2 and all("lora_" in name and "o_proj" not in name for name in learning)
    network, _ = adapted(folder, tmp_path, learn="both")
    layers = {name.split(".lora_")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert "visual.blocks.0.attn.qkv" in layers and "visual.merger.linear_fc1" in layers
    assert "visual.patch_embed.proj" not in layers


def test_full_training_of_a_tower(folder, tmp_path):
    for learn, tower in (("decoder", "language_model"), ("vision", "visual")):
        network = network_of(folder)
        adapters.settle(network, stage_for(tmp_path, folder, learn=learn))
        assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == {tower}


def test_in_bf16_what_learns_stays_float32(folder, tmp_path):
    network, _ = adapted(folder, tmp_path, dtype="bfloat16")
    for parameter in network.parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16)
    batch = batch_of(folder, "contrast")
    contrast = Contrast(32, Loss(dims=(16,), temperature=0.1))
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        loss, _ = contrast_step(network, contrast, ALONE, batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)


def test_a_name_that_no_layer_has(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"query_proj.*down_proj"):
        adapters.settle(network_of(folder), stage_for(tmp_path, folder, lora={"targets": ["query_proj"]}))


@pytest.mark.parametrize("learn", ["decoder", "both"])
def test_the_merged_checkpoint_gives_the_vectors_of_the_adapted_network(folder, tmp_path, learn):
    network, _ = adapted(folder, tmp_path, learn=learn)
    pack = batch_of(folder, "contrast").documents[0]
    before = forward(network_of(folder), pack)
    expected = forward(network, pack).detach()
    assert (expected - before).abs().max() > 0.1
    adapters.merge(network)
    export_checkpoint(network, folder, tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(forward(network_of(tmp_path / "merged"), pack), expected, atol=1e-5, rtol=1e-5)


def test_peft_puts_the_saved_adapter_on_the_published_class(folder, tmp_path):
    network, stage = adapted(folder, tmp_path)
    adapters.save(network, tmp_path / "adapter", stage.lora, "Qwen/Qwen3-VL-Embedding-2B")
    base = transformers.Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    ids = torch.tensor([[5, 17, 200, 31, 8]])
    states = theirs.base_model.model.model(input_ids=ids).last_hidden_state[0, -1]
    ours = network(ids[0], torch.arange(5).expand(3, -1), [5])[0]
    torch.testing.assert_close(states, ours, atol=1e-4, rtol=1e-4)
    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert said["r"] == 4 and said["base_model_name_or_path"] == "Qwen/Qwen3-VL-Embedding-2B"


def test_gradient_checkpointing_changes_memory_not_gradients(folder, tmp_path):
    batch = batch_of(folder, "contrast")
    found = []
    held = []
    for wanted in (False, True):
        network, _ = adapted(folder, tmp_path, learn="both", gradient_checkpointing=wanted)
        contrast = Contrast(32, Loss(dims=(16,), temperature=0.1))
        counted = Held()
        with counted:
            loss, _ = contrast_step(network, contrast, ALONE, batch)
        loss.backward()
        held.append(counted.values)
        found.append({name: p.grad for name, p in network.named_parameters() if p.requires_grad})
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, atol=1e-5, rtol=1e-4, msg=name)
    assert held[1] < held[0] / 2
    adapters.plain_layers(network)
    adapters.merge(network)
    Checkpoint(folder).build(torch.device("cpu"), torch.float32).load_state_dict(network.state_dict())
