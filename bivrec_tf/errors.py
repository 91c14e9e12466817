"""The errors, `bivrec_contract.errors`, under the name that the model library uses."""

from bivrec_contract.errors import BivrecError, ConfigError, DataError

__all__ = ["BivrecError", "ConfigError", "DataError"]
