"""The contract, `bivrec_contract.features`, under the name that the model library uses."""

from bivrec_contract.features import *  # noqa: F403
