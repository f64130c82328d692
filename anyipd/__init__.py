"""anyipd binds /64s of delegated IPv6 prefixes by AnyIP, and keeps them right."""

__version__ = "0.1.0"
