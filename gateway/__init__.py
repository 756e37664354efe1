"""The gateway: composes the stages into dubs, and gives them a command line and an API."""

import services  # noqa: F401  # sets up numeric libraries before anything loads them
