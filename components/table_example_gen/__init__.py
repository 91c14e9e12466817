"""Reads the user's two tables, checks every row, and writes `tf.train.Example`s."""
