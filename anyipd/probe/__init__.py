"""Whether addresses really answer, and if not, why: asked of this host, and of the router by the uplink."""

import os

# scapy keeps megabytes in HOME otherwise. That may be another user's, through whose links root would write.
os.environ |= {"XDG_CACHE_HOME": os.devnull, "XDG_CONFIG_HOME": os.devnull}

from scapy.config import conf

# What imports scapy's layers reads the whole routing table otherwise: with 65,536 routes of ours that
# takes half a minute and 1.6 GB.
conf.route_autoload = conf.route6_autoload = False
