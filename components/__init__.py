"""Custom TFX components: spec, executor, and a core without TFX that is tested alone."""
