"""The splits once more, written independently: plain pandas, no sharing with the component."""

from collections import Counter

import pandas as pd


def naive_k_core(frame, min_user, min_item):
    frame = frame.sort_values(["timestamp", "row"])
    frame = frame.drop_duplicates(["user_id", "item_id", "timestamp"])
    frame = frame.drop_duplicates(["user_id", "item_id"])
    while True:
        size = len(frame)
        frame = frame[frame.groupby("user_id")["item_id"].transform("size") >= min_user]
        frame = frame[frame.groupby("item_id")["user_id"].transform("size") >= min_item]
        if len(frame) == size:
            return frame.reset_index(drop=True)


def _label_events(frame, config):
    """Returns the frame with the columns `place` (rank within the user) and `part`."""
    frame = frame.copy()
    frame["place"] = frame.groupby("user_id").cumcount()
    frame["size"] = frame.groupby("user_id")["item_id"].transform("size")
    if config.protocol == "temporal":
        ordered = frame["timestamp"].sort_values().to_numpy()
        first = ordered[int(config.validation_quantile * len(ordered))]
        second = ordered[int(config.test_quantile * len(ordered))]
        frame["part"] = "train"
        frame.loc[frame["timestamp"] >= first, "part"] = "validation"
        frame.loc[frame["timestamp"] >= second, "part"] = "test"
        if config.temporal_targets == "last":
            last = frame.groupby(["user_id", "part"])["place"].transform("max")
            frame.loc[(frame["part"] != "train") & (frame["place"] < last), "part"] = "context"
    elif config.protocol == "leave_one_out":
        frame["part"] = "train"
        enough = frame["size"] >= 3
        frame.loc[enough & (frame["place"] == frame["size"] - 2), "part"] = "validation"
        frame.loc[enough & (frame["place"] == frame["size"] - 1), "part"] = "test"
    else:
        frame["part"] = frame["split"]
        known = frame["place"] * 1.0 < (frame["size"] * (1 - config.holdout_fraction)).astype(int)
        frame.loc[(frame["split"] != "train") & known, "part"] = "context"
    return frame


def _popularity(frame):
    counts = frame[frame["part"] == "train"].groupby("item_id").size().reset_index(name="n")
    counts = counts.sort_values(["n", "item_id"], ascending=[False, True])
    share = (counts["n"].cumsum() - counts["n"]) / counts["n"].sum()
    labels = pd.cut(share, [-1, 0.5, 0.8, 2], right=False, labels=["head", "middle", "tail"])
    return dict(zip(counts["item_id"], labels, strict=True))


def naive_sequences(frame, config):
    """Returns split -> Counter of examples, each a tuple of its features, and the k-core.

    Args:
        frame: user_id, item_id (strings), timestamp, row, and split for the `user` protocol.
        config: a SequenceConfig.
    """
    core = naive_k_core(frame, config.min_user_interactions, config.min_item_interactions)
    events = _label_events(core, config)
    classes = _popularity(events)
    examples = {"train": Counter(), "validation": Counter(), "test": Counter()}

    def add(split, user, own, begin, first, last):
        """Adds the example of one user's items: begin..first is history, first..last target."""
        items, timestamps = own
        begin = max(begin, first - config.max_seen)
        kinds = {classes.get(item, "cold") for item in items[first:last]}
        bucket = ["0", "1-5", "6-20", "21-50", "51+"][
            sum(first - begin > end for end in (0, 5, 20, 50))
        ]
        examples[split][
            (
                user,
                tuple(items[begin:first]),
                tuple(timestamps[begin:first]),
                tuple(items[first:last]),
                bucket,
                kinds.pop() if len(kinds) == 1 else "mixed",
                int(any(item not in classes for item in items[first:last])),
                1.0,
            )
        ] += 1

    for user, frame_of_user in events.groupby("user_id"):
        own = frame_of_user["item_id"].tolist(), frame_of_user["timestamp"].tolist()
        parts = frame_of_user["part"].tolist()
        # Training always comes first, so places in training are places in the whole.
        first, trained = 0, parts.count("train")
        while first < trained:
            begin = max(0, first - config.window_overlap)
            last = min(trained, begin + config.max_history + 1)
            add("train", user, own, begin, first, last)
            first = last
        for place, part in enumerate(parts):
            if part not in ("validation", "test"):
                continue
            if config.protocol != "user":
                add(part, user, own, 0, place, place + 1)
            elif place == 0 or parts[place - 1] != part:
                add(part, user, own, 0, place, len(parts))
    return examples, core
