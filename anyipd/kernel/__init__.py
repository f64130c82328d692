"""The kernel's routing tables over rtnetlink; `routes.py` alone writes."""
