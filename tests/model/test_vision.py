"""The vision tower's exact shortcuts."""

import torch

from sightline.model.config import VisionConfig
from sightline.model.vision import VisionTower


def tower():
    config = VisionConfig(
        depth=2,
        hidden_size=32,
        intermediate_size=48,
        num_heads=4,
        out_hidden_size=16,
        num_position_embeddings=16,
        deepstack_layers=(0,),
    )
    model = VisionTower(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.requires_grad_(False)


def test_a_still_picture_takes_half_the_product_and_gives_the_same():
    model = tower()
    still = torch.randint(0, 256, (8, 768), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    twice = still.view(8, 3, 1, 256).expand(8, 3, 2, 256).reshape(8, 1536)
    for ours, theirs in zip(model([still], [(1, 4, 2)]), model([twice], [(1, 4, 2)]), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_pictures_do_not_see_each_other_nor_do_the_times_of_a_video():
    model = tower()
    generator = torch.Generator().manual_seed(2)
    video = torch.randint(0, 256, (16, 1536), dtype=torch.uint8, generator=generator)
    still = torch.randint(0, 256, (4, 768), dtype=torch.uint8, generator=generator)
    together = model([video, still], [(2, 4, 2), (1, 2, 2)])[0]
    alone = torch.cat(
        [model([video[:8]], [(1, 4, 2)])[0], model([video[8:]], [(1, 4, 2)])[0], model([still], [(1, 2, 2)])[0]]
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_patch_embedding_is_the_convolution_it_is_stored_as():
    model = tower()
    patches = torch.randn(5, 1536, generator=torch.Generator().manual_seed(3))
    kernel = model.patch_embed.proj
    convolved = torch.nn.functional.conv3d(patches.view(5, 3, 2, 16, 16), kernel.weight, kernel.bias).flatten(1)
    torch.testing.assert_close(model.patch_embed(patches), convolved, atol=1e-4, rtol=1e-4)
