"""The standard Pusher, which pushes a model that is already the newest version only once."""
