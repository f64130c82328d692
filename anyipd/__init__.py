"""anyipd binds /64s of delegated IPv6 prefixes by AnyIP, and keeps them right."""

import os

__version__ = "0.1.0"

# Else pydantic looks for plugins through all that is installed: a tenth of a start, and nobody has any.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"
