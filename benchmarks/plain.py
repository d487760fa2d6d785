"""The equations of arXiv 2305.03112 read literally, to compare with: every map of every layer and head is kept, the
images go one at a time, neighbours are cut out by convolutions with one-hot kernels, and nothing is used twice.

It runs on the weights of a `CAMSegmentor` with an `AttentionViT` of C class tokens, and gives what that gives.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from aream_mm.models.segmentor import CAMSegmentor

IGNORE_INDEX = 255


def forward(model: CAMSegmentor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 3, H, W) → class logits (B, C), class map (B, C, h, w), and all S[l, h] (L, B, H, N, N)."""
    vit, every_logit = model.backbone, []
    patches = vit.patch_embed(vit.normalize(images))
    batch, h, w, _ = patches.shape
    patches = (patches + vit._position_embedding(h, w)).flatten(1, 2)
    x = torch.cat([(vit.class_tokens + vit.class_pos_embed).expand(batch, -1, -1), patches], dim=1)
    for block in vit.blocks:
        attention, normed = block.attn, block.norm1(x)
        q, k, v = attention.qkv(normed).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-2, -1) * attention.scale
        every_logit.append(logits)
        attended = attention.proj((logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        x = x + block.drop_path1(block.ls1(attended))
        x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    tokens, patches = x.split([vit.num_class_tokens, h * w], dim=1)
    class_map = model.head.class_map(patches.transpose(1, 2).unflatten(2, (h, w)))
    return tokens.mean(dim=-1), class_map, torch.stack(every_logit)


@torch.no_grad()
def raw_cam(model: CAMSegmentor, image: Tensor, layers: int, size: tuple[int, int]) -> Tensor:
    """Image (1, 3, H, W) → the CAM of every class at `size`, propagated by the mean affinity of the first layers."""
    _, class_map, logits = forward(model, image)
    classes, grid = class_map.shape[1], class_map.shape[-2:]
    affinity = logits.softmax(dim=-1).mean(dim=2)  # (L, 1, N, N)
    class_affinity = affinity[:, :, :classes, classes:].mean(dim=0).unflatten(2, grid)
    patch_affinity = affinity[:layers, :, classes:, classes:].mean(dim=0)
    cam = class_map.relu() * class_affinity
    cam = (patch_affinity @ cam.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, grid)
    return F.interpolate(cam, size, mode='bilinear', align_corners=False)


def normalized_cam(model: CAMSegmentor, image: Tensor, layers: int) -> Tensor:
    """Image (1, 3, H, W) → the CAM of the image and its mirror image in 0..1, (C, H, W)."""
    patch, size = model.backbone.patch_size, image.shape[-2:]
    whole = [round(side / patch) * patch for side in size]
    resized = F.interpolate(image, whole, mode='bilinear', align_corners=False)
    (cam,) = raw_cam(model, resized, layers, size) + raw_cam(model, resized.flip(-1), layers, size).flip(-1)
    cam = cam - cam.amin(dim=(1, 2), keepdim=True)
    return cam / (cam.amax(dim=(1, 2), keepdim=True) + 1e-6)


def predict(model: CAMSegmentor, images: Tensor, tags: Tensor) -> list[Tensor]:
    """Images (B, 3, H, W), tags (B, C) → the CAM mask of each, (H, W)."""
    masks = []
    for image, tag in zip(images, tags, strict=True):
        cam = normalized_cam(model, image[None], model.backbone.num_layers) * tag[:, None, None]
        background = torch.full_like(cam[:1], model.test_cfg.background)
        masks.append(torch.cat([background, cam]).argmax(dim=0))
    return masks


def neighbours(planes: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """(1, K, H, W) → (1, K, N, H, W), the 8 neighbours at each distance, replicate padding."""
    kernels = torch.eye(9, device=planes.device).view(9, 1, 3, 3)[[0, 1, 2, 3, 5, 6, 7, 8]]
    found = []
    for dilation in dilations:
        padded = F.pad(planes, (dilation,) * 4, mode='replicate').transpose(0, 1)  # (K, 1, H', W')
        found.append(F.conv2d(padded, kernels, dilation=dilation))
    return torch.cat(found, dim=1)[None]


def par(image: Tensor, planes: Tensor, dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24), rounds: int = 10) -> Tensor:
    """Image (1, 3, H, W) in 0..1, planes (1, K, H, W) → (1, K, H, W)."""
    around = neighbours(image, dilations)
    likeness = -(((around - image[:, :, None]).abs() / (around.std(dim=2, keepdim=True) + 1e-8) / 0.3) ** 2).mean(dim=1)
    reach = torch.tensor([[2**0.5, 1, 2**0.5, 1, 1, 2**0.5, 1, 2**0.5]], device=image.device)
    distance = (torch.tensor(dilations, device=image.device)[:, None] * reach).flatten()
    closeness = -((distance / (distance.std() + 1e-8) / 0.3) ** 2)
    affinity = likeness.softmax(dim=1) + 0.01 * closeness.softmax(dim=0)[None, :, None, None]
    for _ in range(rounds):
        planes = (neighbours(planes, dilations) * affinity[:, None]).sum(dim=2)
    return planes


def refined_mask(cam: Tensor, tag: Tensor, image: Tensor, background: float) -> Tensor:
    """CAM (C, H, W) in 0..1, tag (C,), image (3, H, W) → the mask at one background score, (H, W)."""
    resize = lambda x, size: F.interpolate(x[None], size, mode='bilinear', align_corners=False)  # noqa: E731
    size, half = image.shape[-2:], [side // 2 for side in image.shape[-2:]]
    present = tag.nonzero().flatten()
    planes = torch.cat([torch.full_like(cam[:1], background), cam[present]])
    (planes,) = par(resize(image, half), resize(planes, half).softmax(dim=1))
    return F.pad(present + 1, (1, 0))[resize(planes, size)[0].argmax(dim=0)]


def reliable_masks(cam: Tensor, tags: Tensor, images: Tensor, low: float = 0.35, high: float = 0.55) -> Tensor:
    """CAM (B, C, H, W) in 0..1, tags (B, C), images (B, 3, H, W) → (B, H, W) of 0, 1..C and 255."""
    masks = []
    for image in zip(cam, tags, images, strict=True):
        at_low, at_high = refined_mask(*image, low), refined_mask(*image, high)
        mask = torch.full_like(at_high, IGNORE_INDEX)
        mask[at_low == 0] = 0
        masks.append(torch.where(at_high > 0, at_high, mask))
    return torch.stack(masks)


def loss(model: CAMSegmentor, images: Tensor, tags: Tensor) -> Tensor:
    """L_cls + loss_weight · mean of L_aff over the deep layers, all w = 1."""
    class_logits, class_map, logits = forward(model, images)
    patch_logits = class_map.mean(dim=(2, 3))
    total = sum(F.multilabel_soft_margin_loss(scores, tags) for scores in (class_logits, patch_logits))

    training, first_deep, classes = model.training, model.attention_loss.layer_index, tags.shape[1]
    model.eval()
    cam = torch.stack([normalized_cam(model, image[None], first_deep) for image in images])
    model.train(training)
    masks = reliable_masks(cam * tags[:, :, None, None], tags, images)
    labels = F.interpolate(masks[:, None].float(), class_map.shape[-2:], mode='nearest').flatten(1)
    same = labels[:, :, None] == labels[:, None, :]
    known = (labels != IGNORE_INDEX)[:, :, None] & (labels != IGNORE_INDEX)[:, None, :]
    similarity = logits[first_deep:, :, :, classes:, classes:].mean(dim=2).sigmoid()  # (L − k, B, P, P)
    positive, negative = (same & known).float(), (~same & known).float()
    attraction = ((1 - similarity) * positive).sum(dim=(1, 2, 3)) / (positive.sum() + 1)
    repulsion = (similarity * negative).sum(dim=(1, 2, 3)) / (negative.sum() + 1)
    return total + model.attention_loss.loss_weight * (attraction + repulsion).mean() / 2


def step(model: CAMSegmentor, optimizer: torch.optim.Optimizer, images: Tensor, tags: Tensor) -> None:
    """One optimiser step."""
    optimizer.zero_grad()
    loss(model, images, tags).backward()
    optimizer.step()
