"""The TFX component that pushes a blessed model, once."""

from tfx import types
from tfx.components import Pusher
from tfx.dsl.components.base import executor_spec
from tfx.proto import pusher_pb2

from components.idempotent_pusher import executor


class IdempotentPusher(Pusher):
    """The standard Pusher, never taken from the cache and idempotent instead.

    A push is a side effect outside the metadata store: the cache would claim versions that were
    removed since, or that another model has replaced. So it runs every time, and does nothing
    when the newest version is the blessed model already.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        base_directory: str,
        requested_at: str = "",
    ):
        """Builds the component.

        Args:
            model: the exported model.
            model_blessing: the Evaluator's verdict.
            infra_blessing: the ServingValidator's verdict.
            base_directory: base path of the model server.
            requested_at: anything that differs between runs, so that no run is answered from
                the cache; empty to leave caching as it is.
        """
        super().__init__(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=base_directory)
            ),
            custom_config={"requested_at": requested_at},
        )
