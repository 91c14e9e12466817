"""The equations of `docs/model.md`, word for word in loops and float64, at inference."""

import math

import numpy as np
from scipy.special import erf


def weight(variable):
    return variable.numpy().astype(float)


def dense(layer, x):
    y = x @ weight(layer.kernel)
    return y + weight(layer.bias) if layer.use_bias else y


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def layer_norm(layer, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return centred / deviation * weight(layer.gamma) + weight(layer.beta)


def softmax(values):
    values = np.asarray(values, float)
    shifted = np.exp(values - values.max())
    return shifted / shifted.sum()


def multi_scale_patching(layer, items, mask):
    batch, length, _ = items.shape
    all_tokens, all_masks = [], []
    for b in range(batch):
        tokens, valid = [], []

        def add(index, positions, is_valid, distance, b=b, tokens=tokens, valid=valid):
            inside = [t for t in positions if t >= 0 and mask[b, t]]
            total = sum((items[b, t].astype(float) for t in inside), np.zeros(items.shape[2]))
            token = total / math.sqrt(max(len(inside), 1)) + weight(layer._scale_embeddings)[index]
            if distance is not None:
                token = token + weight(layer._distance_embeddings[index])[distance]
            tokens.append(layer_norm(layer._norm, token))
            valid.append(bool(inside) if is_valid is None else is_valid)

        if layer.causal:
            for t in range(length):
                for index, scale in enumerate(layer.scales):
                    add(index, range(t - scale + 1, t + 1), bool(mask[b, t]), None)
        else:
            for index, scale in enumerate(layer.scales):
                for distance in reversed(range(math.ceil(length / scale))):
                    last = length - 1 - distance * scale
                    add(index, range(last - scale + 1, last + 1), None, distance)
        all_tokens.append(tokens)
        all_masks.append(valid)
    return np.array(all_tokens), np.array(all_masks)


def context_block(layer, tokens, mask):
    batch, count, dimension = tokens.shape
    heads, size = layer.num_heads, dimension // layer.num_heads
    out = np.zeros(tokens.shape)
    for b in range(batch):
        projected = dense(layer._query_key_value, layer_norm(layer._attention_norm, tokens[b]))
        query, key, value = np.transpose(projected.reshape(count, 3, heads, size), [1, 2, 0, 3])
        for i in range(count):
            mixed = []
            for h in range(heads):
                logits, values = [], []
                for j in range(count):
                    distance = i // layer.tokens_per_position - j // layer.tokens_per_position
                    if not mask[b, j] or (layer.max_distance is not None and distance < 0):
                        continue
                    logit = query[h, i] @ key[h, j] / math.sqrt(size)
                    if layer.max_distance is not None:
                        bias = weight(layer._distance_bias)
                        logit += bias[h, min(distance, layer.max_distance - 1)]
                    logits.append(logit)
                    values.append(value[h, j])
                mixed.append(softmax(logits) @ np.array(values) if logits else np.zeros(size))
            token = tokens[b, i] + dense(layer._output, np.concatenate(mixed))
            hidden = gelu(dense(layer._expand, layer_norm(layer._feed_forward_norm, token)))
            out[b, i] = token + dense(layer._contract, hidden)
    return out


def gaussian_attention(layer, tokens, mask):
    batch, count, dimension = tokens.shape
    width = layer.tokens_per_position
    mean, scale = weight(layer._mean), np.log1p(np.exp(weight(layer._raw_scale)))
    lengths = [width * (t + 1) for t in range(count // width)] if layer.causal else [count]
    out = np.zeros([batch, len(lengths), layer.num_interests, dimension])
    for b in range(batch):
        key, value = dense(layer._key, tokens[b]), dense(layer._value, tokens[b])
        for index, stop in enumerate(lengths):
            for k in range(layer.num_interests):
                seen = [t for t in range(stop) if mask[b, t]]
                logits = [-0.5 * (((mean[k] - key[t]) / scale[k]) ** 2).sum() for t in seen]
                pooled = softmax(logits) @ value[seen] if seen else np.zeros(dimension)
                out[b, index, k] = layer_norm(layer._norm, mean[k] + dense(layer._output, pooled))
    return out if layer.causal else out[:, 0]


def cluster_attention(layer, interests, tokens, mask):
    if not layer.causal:
        interests = interests[:, np.newaxis]
    batch, steps, num_interests, dimension = interests.shape
    count, width = tokens.shape[1], layer.tokens_per_position
    allocation = np.zeros([batch, num_interests, count])
    assignment = np.zeros([batch, num_interests, count])
    out = np.zeros(interests.shape)
    for b in range(batch):
        key, value = dense(layer._key, tokens[b]), dense(layer._value, tokens[b])
        for t in range(count):
            if not mask[b, t]:
                continue
            now = interests[b, t // width if layer.causal else 0]
            affinity = dense(layer._query, now) @ key[t] / math.sqrt(dimension)
            allocation[b, :, t] = softmax(affinity / layer.temperature)
            for k in np.argsort(-affinity)[: layer.top_n]:
                assignment[b, k, t] = 1 / layer.top_n
        for step in range(steps):
            stop = width * (step + 1) if layer.causal else count
            for k in range(num_interests):
                given = assignment[b, k, :stop]
                mean = given @ value[:stop] / (given.sum() + 1)
                renewed = layer_norm(
                    layer._norm, interests[b, step, k] + dense(layer._output, mean)
                )
                hidden = gelu(dense(layer._expand, renewed))
                out[b, step, k] = renewed + dense(layer._contract, hidden)
    return (out if layer.causal else out[:, 0]), allocation


def interest_decomposition(layer, tokens, mask):
    for block in layer._blocks:
        tokens = context_block(block, tokens, mask)
    interests = gaussian_attention(layer._gaussian, tokens, mask)
    return cluster_attention(layer._cluster, interests, tokens, mask)


def content_projection(layer, features, presence):
    count = len(next(iter(presence.values())))
    out = np.zeros([count, layer.dimension])
    for row in range(count):
        parts = []
        for name in layer.modalities:
            if not presence[name][row]:
                parts.append(weight(layer._missing[name]))
                continue
            raw = features[name][row].astype(float)
            standardised = (raw - weight(layer._means[name])) * weight(layer._scales[name])
            projected = dense(layer._projections[name], standardised)
            parts.append(layer_norm(layer._norms[name], projected))
        out[row] = layer_norm(layer._output_norm, dense(layer._output, np.concatenate(parts)))
    return out
