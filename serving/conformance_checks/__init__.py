"""The checks of `serving.conformance`, which know nothing of this project's own server."""
