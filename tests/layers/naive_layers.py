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
    batch, length, dimension = items.shape
    tokens = np.zeros(items.shape)
    for b in range(batch):
        for t in range(length):
            token = np.zeros(dimension)
            for scale, gamma in zip(layer.scales, layer._weights, strict=True):
                inside = [j for j in range(max(0, t - scale + 1), t + 1) if mask[b, j]]
                total = sum((items[b, j].astype(float) for j in inside), np.zeros(dimension))
                token += weight(gamma) * total / math.sqrt(max(len(inside), 1))
            tokens[b, t] = layer_norm(layer._norm, token)
    return tokens


def context_block(layer, tokens, mask):
    batch, count, dimension = tokens.shape
    heads, size = layer.num_heads, dimension // layer.num_heads
    out = np.zeros(tokens.shape)
    for b in range(batch):
        normal = layer_norm(layer._attention_norm, tokens[b])
        key, value = np.split(dense(layer._key_value, normal), 2, axis=-1)
        query, key, value = (
            of.reshape(count, heads, size) for of in (dense(layer._query, normal), key, value)
        )
        for i in range(count):
            mixed = []
            for h in range(heads):
                logits, values = [], []
                for j in range(count):
                    distance = i - j
                    if not mask[b, j] or distance < 0:
                        continue
                    bias = weight(layer._distance_bias)[h, min(distance, layer.max_distance - 1)]
                    logit = query[i, h] @ key[j, h] / math.sqrt(size) + bias
                    logits.append(logit)
                    values.append(value[j, h])
                mixed.append(softmax(logits) @ np.array(values) if logits else np.zeros(size))
            token = tokens[b, i] + dense(layer._output, np.concatenate(mixed))
            hidden = gelu(dense(layer._expand, layer_norm(layer._feed_forward_norm, token)))
            out[b, i] = token + dense(layer._contract, hidden)
    return out


def gaussian_attention(layer, tokens, mask):
    """Pools at every position `[batch, length, K, D]`, and log densities `[batch, K, length]`."""
    batch, length, dimension = tokens.shape
    mean = weight(layer._mean)
    scale = np.log1p(np.exp(weight(layer._raw_scale))) if layer.gaussian else None
    rate = np.log1p(np.exp(weight(layer._raw_rate)))
    pooled = np.zeros([batch, length, layer.num_interests, dimension])
    density = np.zeros([batch, layer.num_interests, length])
    for b in range(batch):
        key = dense(layer._key, tokens[b])
        for k in range(layer.num_interests):
            for j in range(length):
                if layer.gaussian:
                    density[b, k, j] = -0.5 * (((mean[k] - key[j]) / scale[k]) ** 2).sum()
                else:
                    density[b, k, j] = mean[k] @ key[j]
                density[b, k, j] -= rate[k] * (length - 1 - j)
            for t in range(length):
                seen = [j for j in range(t + 1) if mask[b, j]]
                if seen:
                    pooled[b, t, k] = softmax(density[b, k, seen]) @ tokens[b, seen]
    return pooled, density


def cluster_attention(layer, tokens, mask, pooled, mean):
    """Renewals at every position `[batch, length, K, D]`, and the allocation."""
    batch, length, num_interests, dimension = pooled.shape
    allocation = np.zeros([batch, num_interests, length])
    assignment = np.zeros([batch, num_interests, length])
    out = np.zeros(pooled.shape)
    for b in range(batch):
        key = dense(layer._key, tokens[b])
        for j in range(length):
            if not mask[b, j]:
                continue
            affinity = (mean + pooled[b, j]) @ key[j] / math.sqrt(dimension)
            allocation[b, :, j] = softmax(affinity / layer.temperature)
            for k in np.argsort(-affinity)[: layer.top_n]:
                assignment[b, k, j] = 1 / layer.top_n
        for t in range(length):
            for k in range(num_interests):
                given = assignment[b, k, : t + 1]
                out[b, t, k] = given @ tokens[b, : t + 1] / (given.sum() + 1)
    return out, allocation


def interest_decomposition(layer, tokens, mask):
    state, density = gaussian_attention(layer._gaussian, tokens, mask)
    if layer.cluster:
        mean = weight(layer._gaussian._mean)
        renewal, allocation = cluster_attention(layer._cluster, tokens, mask, state, mean)
        state = state + renewal
    else:
        allocation = np.apply_along_axis(softmax, 1, density) * mask[:, np.newaxis]
    context = tokens
    for block in layer._blocks:
        context = context_block(block, context, mask)
    context = layer_norm(layer._present_norm, context)
    interests = weight(layer._share) * layer_norm(layer._pool_norm, state)
    interests = interests + context[:, :, np.newaxis] + weight(layer._offset)
    return layer_norm(layer._norm, interests), allocation


def content_projection(layer, features, presence):
    count = len(next(iter(presence.values())))
    out = np.zeros([count, layer.dimension])
    for row in range(count):
        parts, known = [], []
        for name in layer.modalities:
            if not presence[name][row]:
                parts.append(weight(layer._missing[name]))
                known.append(np.zeros(layer._whitenings[name].shape[1]))
                continue
            raw = features[name][row].astype(float)
            whitened = (raw - weight(layer._means[name])) @ weight(layer._whitenings[name])
            projected = dense(layer._projections[name], whitened)
            parts.append(layer_norm(layer._norms[name], projected))
            known.append(whitened)
        vector = dense(layer._output, np.concatenate(parts))
        if layer.hidden_units:
            hidden = gelu(dense(layer._expand, np.concatenate(known)))
            vector = vector + dense(layer._contract, hidden)
        out[row] = layer_norm(layer._output_norm, vector)
    return out
