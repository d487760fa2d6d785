"""Slow, obvious implementations of the equations of arXiv 2305.03112: loops over numpy arrays, one image at a time.

Nothing here is shared with `aream_mm`. C classes without background, K planes, P = h·w patches, N tokens, H heads.
"""

from itertools import product

import numpy as np

IGNORE_INDEX = 255


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis):
    exponents = np.exp(x - x.max(axis=axis, keepdims=True))
    return exponents / exponents.sum(axis=axis, keepdims=True)


def attention(x, weight, bias, num_heads):
    """S[h] = q kᵀ / √d, A = mean_h softmax(S[h]), Z = mean_h S[h].

    x (N, D) after the layer's norm, weight (3D, D), bias (3D,) of the qkv layer →
    logits (H, N, N), affinity (N, N), mean logits (N, N).
    """
    tokens, channels = x.shape
    width = channels // num_heads
    qkv = x @ weight.T + bias
    logits = np.zeros((num_heads, tokens, tokens))
    for head in range(num_heads):
        q = qkv[:, head * width : (head + 1) * width]
        k = qkv[:, channels + head * width : channels + (head + 1) * width]
        for i, j in product(range(tokens), range(tokens)):
            logits[head, i, j] = np.dot(q[i], k[j]) / np.sqrt(width)
    affinity = np.mean([softmax(logits[head], axis=1) for head in range(num_heads)], axis=0)
    return logits, affinity, logits.mean(axis=0)


def propagate(cam, affinity, steps=1):
    """cam[c, p] ← Σ_q affinity[p, q] · cam[c, q]: (C, h, w), (P, P) → (C, h, w)."""
    flat = cam.reshape(len(cam), -1).astype(np.float64)
    for _ in range(steps):
        result = np.zeros_like(flat)
        for c, p, q in product(range(len(flat)), range(flat.shape[1]), range(flat.shape[1])):
            result[c, p] += affinity[p, q] * flat[c, q]
        flat = result
    return flat.reshape(cam.shape)


def normalize(cam):
    """(M − min) / (max(M − min) + 1e-6) for each map of (C, H, W)."""
    return np.stack([(plane - plane.min()) / ((plane - plane.min()).max() + 1e-6) for plane in cam])


def resize(planes, size):
    """Bilinear, align_corners=False: (K, h, w) → (K, *size)."""
    planes = np.asarray(planes, dtype=np.float64)
    result = np.zeros((len(planes), *size))

    def sources(target, length, new_length):
        position = max((target + 0.5) * length / new_length - 0.5, 0)
        first = int(position)
        second = min(first + 1, length - 1)
        return (first, 1 - (position - first)), (second, position - first)

    for y, x in product(range(size[0]), range(size[1])):
        for row, row_weight in sources(y, planes.shape[1], size[0]):
            for column, column_weight in sources(x, planes.shape[2], size[1]):
                result[:, y, x] += row_weight * column_weight * planes[:, row, column]
    return result


def par(image, planes, dilations=(1, 2, 4, 8, 12, 24), num_iters=10):
    """Pixel-adaptive refinement: image (3, H, W) in 0..1, planes (K, H, W) → (K, H, W)."""
    image, planes = np.asarray(image, dtype=np.float64), np.asarray(planes, dtype=np.float64)
    height, width = image.shape[1:]
    directions = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    offsets = [(dilation * dy, dilation * dx) for dilation in dilations for dy, dx in directions]

    distance = np.array([np.hypot(dy, dx) for dy, dx in offsets])
    closeness = softmax(-((distance / (distance.std(ddof=1) + 1e-8) / 0.3) ** 2), axis=0)

    def neighbours(y, x):
        return [(min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) for dy, dx in offsets]

    weights = np.zeros((height, width, len(offsets)))
    for y, x in product(range(height), range(width)):
        colours = np.array([image[:, row, column] for row, column in neighbours(y, x)])  # (neighbours, 3)
        contrast = np.abs(colours - image[:, y, x]) / (colours.std(axis=0, ddof=1) + 1e-8) / 0.3
        weights[y, x] = softmax(-(contrast**2).mean(axis=1), axis=0) + 0.01 * closeness

    for _ in range(num_iters):
        refined = np.zeros_like(planes)
        for y, x in product(range(height), range(width)):
            for weight, (row, column) in zip(weights[y, x], neighbours(y, x), strict=True):
                refined[:, y, x] += weight * planes[:, row, column]
        planes = refined
    return planes


def mean_field(
    image, energies, num_iters, gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat
):
    """Dense CRF with every pair of pixels: image (3, H, W) in 0..255, energies (K, H, W) → probabilities (K, H, W)."""
    height, width = image.shape[1:]
    pixels = [(y, x) for y in range(height) for x in range(width)]
    near, alike = (np.zeros((len(pixels), len(pixels))) for _ in range(2))
    for i, (y, x) in enumerate(pixels):
        for j, (v, u) in enumerate(pixels):
            distance = (y - v) ** 2 + (x - u) ** 2
            colours = sum((float(image[c, y, x]) - float(image[c, v, u])) ** 2 for c in range(3))
            near[i, j] = np.exp(-distance / (2 * gaussian_sxy**2))
            alike[i, j] = np.exp(-distance / (2 * bilateral_sxy**2) - colours / (2 * bilateral_srgb**2))
    pairwise = 0
    for kernel, compat in ((near, gaussian_compat), (alike, bilateral_compat)):
        scale = 1 / np.sqrt(kernel.sum(axis=1))
        pairwise = pairwise + compat * scale[:, None] * kernel * scale[None, :]
    unary = energies.reshape(len(energies), -1).astype(np.float64)
    beliefs = softmax(-unary, axis=0)
    for _ in range(num_iters):
        beliefs = softmax(-unary + beliefs @ pairwise, axis=0)
    return beliefs.reshape(energies.shape)


def refined_mask(cam, tags, image, background):
    """CAM (C, H, W) in 0..1, tags (C,), image (3, H, W) in 0..1 → mask (H, W) at one background score."""
    height, width = image.shape[1:]
    half = (height // 2, width // 2)
    present = [c for c in range(len(cam)) if tags[c]]
    planes = np.stack([np.full((height, width), background), *(cam[c] for c in present)])
    planes = softmax(resize(planes, half), axis=0)
    planes = resize(par(resize(image, half), planes), (height, width))
    classes = np.array([0, *(c + 1 for c in present)])
    return classes[planes.argmax(axis=0)]


def reliable_mask(cam, tags, image, low=0.35, high=0.55):
    """The class where the high mask is foreground, 0 where both masks are background, else 255."""
    low_mask = refined_mask(cam, tags, image, low)
    high_mask = refined_mask(cam, tags, image, high)
    result = np.full(low_mask.shape, IGNORE_INDEX)
    for y, x in product(range(result.shape[0]), range(result.shape[1])):
        if high_mask[y, x] > 0:
            result[y, x] = high_mask[y, x]
        elif low_mask[y, x] == 0:
            result[y, x] = 0
    return result


def pair_labels(mask, grid):
    """(H, W) → (P, P): 1 same class, 0 different, 255 either end ignored; nearest neighbour down to the grid (h, w)."""
    height, width = mask.shape
    labels = [mask[y * height // grid[0], x * width // grid[1]] for y in range(grid[0]) for x in range(grid[1])]
    pairs = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for (i, first), (j, second) in product(enumerate(labels), enumerate(labels)):
        ignored = IGNORE_INDEX in (first, second)
        pairs[i, j] = IGNORE_INDEX if ignored else first == second
    return pairs


def affinity_loss(mean_logits, pairs):
    """½ Σ_pos (1 − σ(Z[l])) / (n_pos + 1) + ½ Σ_neg σ(Z[l]) / (n_neg + 1): (L', B, P, P), (B, P, P) → (L',)."""
    losses = []
    for layer in mean_logits:
        positive, negative = [], []
        for index in np.ndindex(*pairs.shape):
            if pairs[index] == 1:
                positive.append(1 - sigmoid(layer[index]))
            elif pairs[index] == 0:
                negative.append(sigmoid(layer[index]))
        losses.append(0.5 * sum(positive) / (len(positive) + 1) + 0.5 * sum(negative) / (len(negative) + 1))
    return np.array(losses)


def layer_entropy(cam, affinity, tags):
    """Entropy in bits of softmax_p Σ_{present c} (A[l] cam)[c, p], mean over images.

    cam (B, C, h, w), affinity (L, B, P, P), tags (B, C) → (L,).
    """
    entropies = np.zeros((len(affinity), len(cam)))
    for layer, image in product(range(len(affinity)), range(len(cam))):
        spread = propagate(cam[image], affinity[layer, image])
        evidence = sum(spread[c].ravel() for c in range(len(spread)) if tags[image, c])
        probability = softmax(evidence, axis=0)
        entropies[layer, image] = -sum(p * np.log2(p) for p in probability if p > 0)
    return entropies.mean(axis=1)


def effective_tokens(affinity):
    """exp of the entropy of each row of (P, P), normalised over the patches; mean over rows."""
    numbers = []
    for row in affinity:
        probability = row / row.sum()
        numbers.append(np.exp(-sum(p * np.log(p) for p in probability if p > 0)))
    return np.mean(numbers)


def token_similarity(tokens):
    """Mean cosine over all pairs of different tokens of (P, D)."""
    cosines = [
        np.dot(tokens[i], tokens[j]) / np.linalg.norm(tokens[i]) / np.linalg.norm(tokens[j])
        for i, j in product(range(len(tokens)), repeat=2)
        if i != j
    ]
    return np.mean(cosines)


def foreground_mass(affinity, foreground, known):
    """Share of attention (P, P) on foreground patches, mean over foreground and over background patches."""
    shares = {True: [], False: []}
    patches = [p for p in range(len(affinity)) if known[p]]
    for p in patches:
        share = sum(affinity[p, q] for q in patches if foreground[q]) / sum(affinity[p, q] for q in patches)
        shares[bool(foreground[p])].append(share)
    return tuple(np.mean(shares[key]) if shares[key] else np.nan for key in (True, False))


def threshold_sweep(cams, masks, thresholds, num_classes):
    """One whole pass for each threshold: mIoU in percent; background wins ties; a class nobody has does not count."""
    result = []
    for threshold in thresholds:
        hits, unions = np.zeros(num_classes), np.zeros(num_classes)
        for (classes, scores), mask in zip(cams, masks, strict=True):
            scores = np.asarray(scores)
            planes = np.concatenate([np.full((1, *mask.shape), threshold, scores.dtype), scores])
            predicted = np.concatenate([[0], np.asarray(classes)]).astype(int)[planes.argmax(axis=0)]
            known = np.asarray(mask) != IGNORE_INDEX
            for c in range(num_classes):
                here, there = (predicted == c) & known, (np.asarray(mask) == c) & known
                hits[c] += (here & there).sum()
                unions[c] += (here | there).sum()
        result.append(np.mean(hits[unions > 0] / unions[unions > 0]) * 100)
    return np.array(result)
