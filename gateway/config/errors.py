"""What a wrong configuration is told as."""


class ConfigError(Exception):
    """The configuration cannot be used.

    Args:
        path: the wrong field, such as `routes[2].model.config.openai_api_key`; empty for the file itself.
        message: what is wrong, and the remedy.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message
