"""Traffic routes, MLflow 3's `routes:`: requests are shared out between the endpoints of the same file.

Source: mlflow 3.17 `gateway/config.py` and `gateway/utils.py`, whose words for refusals are kept.
"""

from collections.abc import Mapping

import msgspec

from gateway.config.errors import ConfigError
from gateway.config.schema import TrafficFile
from gateway.types.route import Route, Target


def traffic_route(file: TrafficFile, endpoints: Mapping[str, Route], path: str) -> Route:
    """The route whose targets are those of its destinations, weighted by their shares; raises ConfigError.

    An endpoint's limits are for its own callers; a target that fails is followed by the others, as in any route.
    """
    if sum(destination.traffic_percentage for destination in file.destinations) != 100:
        raise ConfigError(
            f"{path}.destinations",
            "For each route configuration, the traffic percentage sum of destinations must be 100, but got invalid "
            f"configuration of route '{file.name}'.",
        )
    targets: list[Target] = []
    for index, destination in enumerate(file.destinations):
        endpoint = endpoints.get(destination.name)
        if endpoint is None:
            raise ConfigError(
                f"{path}.destinations[{index}].name",
                "The route destination name must be a endpoint name, but the route "
                f"'{file.name}' has an invalid destination name '{destination.name}'.",
            )
        if endpoint.route_type != file.task_type:
            raise ConfigError(
                f"{path}.destinations[{index}].name",
                f"The route destination endpoint types in the route '{file.name}' must have endpoint type "
                f"'{file.task_type}' but got endpoint type '{endpoint.route_type}'.",
            )
        whole = sum(target.weight for target in endpoint.targets if target.tier == 0) or 1.0
        targets += [
            msgspec.structs.replace(target, weight=target.weight / whole * destination.traffic_percentage)
            for target in endpoint.targets
        ]
    return Route(
        name=file.name,
        route_type=endpoints[file.destinations[0].name].route_type,
        targets=tuple(targets),
        original_shape=False,
        destinations=file.destinations,
    )
