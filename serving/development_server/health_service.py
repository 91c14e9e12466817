"""`grpc.health.v1.Health`, for probes: whether the server takes requests."""

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class HealthService:
    """The health of the server as a whole (service name ""), as TensorFlow Serving gives it.

    Args:
        server: The gRPC server, not started yet.
    """

    def __init__(self, server: grpc.Server):
        # Watchers wait without a thread each: many of them take nothing away from requests.
        self._servicer = health.HealthServicer(experimental_non_blocking=True)
        self._servicer.set(health.OVERALL_HEALTH, health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def serving(self) -> None:
        """From now on the server takes requests."""
        self._servicer.set(health.OVERALL_HEALTH, health_pb2.HealthCheckResponse.SERVING)

    def stopping(self) -> None:
        """From now on, and for good, it does not; watchers are told."""
        self._servicer.enter_graceful_shutdown()
